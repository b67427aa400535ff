<?php

declare(strict_types=1);

namespace Swoole\WebSocket;

use Wsd\SwooleErrors;

/** A message, whole, or a frame to push. */
#[\AllowDynamicProperties]
class Frame
{
    use \Wsd\Missing;

    private const OPCODE_MAX = WEBSOCKET_OPCODE_PONG;
    private const CONTROL_BYTES_MAX = 125;
    private const REASON_BYTES_MAX = 123;
    private const FLAGS_ALL = 0x3f;

    public $fd = 0;
    public $data = '';
    public $opcode = WEBSOCKET_OPCODE_TEXT;
    public $flags = WEBSOCKET_FLAG_FIN;
    public $finish = true;

    /** The frame as it goes over the wire. */
    public function __toString(): string
    {
        return self::pack($this);
    }

    /**
     * A frame as it goes over the wire; empty, with a warning, where it would be none.
     *
     * @param self|string|int|float|bool|null $data
     */
    public static function pack(
        $data,
        $opcode = WEBSOCKET_OPCODE_TEXT,
        $flags = WEBSOCKET_FLAG_FIN,
    ): string {
        $parts = self::parts($data, (int) $opcode, (int) $flags, static::class . '::pack');
        if ($parts === null) {
            return '';
        }
        ['data' => $data, 'opcode' => $opcode, 'flags' => $flags] = self::compressed($parts);
        $length = strlen($data);
        $first = $opcode | ($flags & WEBSOCKET_FLAG_FIN ? 0x80 : 0)
            | ($flags & WEBSOCKET_FLAG_RSV1 ? 0x40 : 0)
            | ($flags & WEBSOCKET_FLAG_RSV2 ? 0x20 : 0)
            | ($flags & WEBSOCKET_FLAG_RSV3 ? 0x10 : 0);
        $mask = ($flags & SWOOLE_WEBSOCKET_FLAG_MASK) !== 0;
        $bit = $mask ? 0x80 : 0;
        $head = match (true) {
            $length < 126 => pack('CC', $first, $bit | $length),
            $length < 65536 => pack('CCn', $first, $bit | 126, $length),
            default => pack('CCJ', $first, $bit | 127, $length),
        };
        if (!$mask) {
            return $head . $data;
        }
        $key = random_bytes(4);
        return $head . $key . self::mask($data, $key);
    }

    /**
     * @internal what is to be sent of a frame, or of its parts; null, with a warning, where it cannot be
     * @return array{data: string, opcode: int, flags: int, code: int, reason: string}|null
     */
    public static function parts(mixed $data, int $opcode, int $flags, string $caller): ?array
    {
        $code = WEBSOCKET_CLOSE_NORMAL;
        if ($data instanceof self) {
            $frame = get_object_vars($data);
            $opcode = (int) ($frame['opcode'] ?? WEBSOCKET_OPCODE_TEXT);
            $flags = (int) ($frame['flags'] ?? WEBSOCKET_FLAG_FIN);
            if (isset($frame['finish'])) {
                $flags = $frame['finish'] ? $flags | WEBSOCKET_FLAG_FIN : $flags & ~WEBSOCKET_FLAG_FIN;
            }
            $code = (int) ($frame['code'] ?? $code);
            $data = $frame[$opcode === WEBSOCKET_OPCODE_CLOSE ? 'reason' : 'data'] ?? '';
        }
        $close = $opcode === WEBSOCKET_OPCODE_CLOSE;
        $data = (string) $data;
        $fault = match (true) {
            $opcode < 0 || $opcode > self::OPCODE_MAX => 'opcode must be between 0 and ' . self::OPCODE_MAX,
            $close && strlen($data) > self::REASON_BYTES_MAX
                => 'the max length of close reason is ' . self::REASON_BYTES_MAX,
            $opcode >= WEBSOCKET_OPCODE_CLOSE && strlen($data) > self::CONTROL_BYTES_MAX
                => 'websocket control frame payload must not exceed ' . self::CONTROL_BYTES_MAX . ' bytes',
            default => null,
        };
        if ($fault !== null) {
            SwooleErrors::$last = SWOOLE_ERROR_WEBSOCKET_PACK_FAILED;
            trigger_error("$caller(): $fault", E_USER_WARNING);
            return null;
        }
        return [
            'data' => $close ? pack('n', $code & 0xffff) . $data : $data,
            'opcode' => $opcode,
            // RFC 6455 section 5.5: a control frame is never a part of something.
            'flags' => $opcode >= WEBSOCKET_OPCODE_CLOSE
                ? $flags & self::FLAGS_ALL | WEBSOCKET_FLAG_FIN
                : $flags & self::FLAGS_ALL,
            'code' => $code,
            'reason' => $close ? $data : '',
        ];
    }

    /** RFC 7692, where FLAG_COMPRESS asks for it: whole data messages only. */
    private static function compressed(array $parts): array
    {
        $whole = ($parts['flags'] & WEBSOCKET_FLAG_FIN) !== 0
            && ($parts['opcode'] === WEBSOCKET_OPCODE_TEXT || $parts['opcode'] === WEBSOCKET_OPCODE_BINARY);
        $asked = ($parts['flags'] & SWOOLE_WEBSOCKET_FLAG_COMPRESS) !== 0 && $parts['data'] !== '';
        if ($whole && $asked && function_exists('deflate_init')) {
            $bytes = deflate_add(deflate_init(ZLIB_ENCODING_RAW), $parts['data'], ZLIB_SYNC_FLUSH);
            $parts['data'] = substr($bytes, 0, -4);
            $parts['flags'] |= WEBSOCKET_FLAG_RSV1;
        }
        return $parts;
    }

    /** The first frame of some bytes, inflated; false where they are no whole frame. */
    public static function unpack(string $bytes): Frame|false
    {
        $frame = self::first($bytes);
        if ($frame === null) {
            SwooleErrors::$last = SWOOLE_ERROR_PROTOCOL_ERROR;
            return false;
        }
        return $frame;
    }

    private static function first(string $bytes): ?self
    {
        if (strlen($bytes) < 2) {
            return null;
        }
        [$first, $second] = [ord($bytes[0]), ord($bytes[1])];
        $length = $second & 0x7f;
        $at = 2;
        if ($length >= 126) {
            $size = $length === 126 ? 2 : 8;
            if (strlen($bytes) < 2 + $size) {
                return null;
            }
            $length = unpack($size === 2 ? 'n' : 'J', $bytes, 2)[1];
            $at += $size;
        }
        $masked = ($second & 0x80) !== 0;
        $end = $at + ($masked ? 4 : 0) + $length;
        if ($length < 0 || strlen($bytes) < $end) {
            return null;
        }
        $opcode = $first & 0x0f;
        $fin = ($first & 0x80) !== 0;
        // RFC 6455 section 5.5.
        if ($opcode >= WEBSOCKET_OPCODE_CLOSE && (!$fin || $length > self::CONTROL_BYTES_MAX)) {
            return null;
        }
        $data = substr($bytes, $end - $length, $length);
        if ($masked) {
            $data = self::mask($data, substr($bytes, $at, 4));
        }
        $compressed = ($first & 0x40) !== 0;
        $data = $compressed ? self::inflated($data) : $data;
        if ($data === null) {
            return null;
        }
        $frame = $opcode === WEBSOCKET_OPCODE_CLOSE ? new CloseFrame() : new Frame();
        if ($frame instanceof CloseFrame) {
            $frame->code = strlen($data) >= 2 ? unpack('n', $data)[1] : WEBSOCKET_CLOSE_NORMAL;
            $frame->reason = substr($data, 2);
        } else {
            $frame->data = $data;
        }
        $frame->opcode = $opcode;
        $frame->finish = $fin;
        $frame->flags = ($fin ? WEBSOCKET_FLAG_FIN : 0)
            | ($compressed ? WEBSOCKET_FLAG_RSV1 | SWOOLE_WEBSOCKET_FLAG_COMPRESS : 0)
            | ($first & 0x20 ? WEBSOCKET_FLAG_RSV2 : 0)
            | ($first & 0x10 ? WEBSOCKET_FLAG_RSV3 : 0)
            | ($masked ? SWOOLE_WEBSOCKET_FLAG_MASK : 0);
        return $frame;
    }

    /** RFC 7692: null, with a warning, where the bytes are nothing that was compressed. */
    private static function inflated(string $data): ?string
    {
        $whole = function_exists('inflate_init')
            ? @inflate_add(inflate_init(ZLIB_ENCODING_RAW), "$data\0\0\xff\xff", ZLIB_SYNC_FLUSH)
            : false;
        if ($whole === false) {
            trigger_error(self::class . '::unpack(): inflate() failed', E_USER_WARNING);
            return null;
        }
        return $whole;
    }

    private static function mask(string $data, string $key): string
    {
        return $data ^ substr(str_repeat($key, intdiv(strlen($data), 4) + 1), 0, strlen($data));
    }
}
