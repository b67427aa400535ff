<?php

declare(strict_types=1);

namespace Swoole\WebSocket;

/** A message, whole. */
#[\AllowDynamicProperties]
class Frame
{
    public $fd = 0;
    public $data = '';
    public $opcode = WEBSOCKET_OPCODE_TEXT;
    public $flags = WEBSOCKET_FLAG_FIN;
    public $finish = true;

    public function __toString(): string
    {
        return (string) $this->data;
    }

    /** A frame as it goes over the wire, unmasked. */
    public static function pack(
        $data,
        int $opcode = WEBSOCKET_OPCODE_TEXT,
        int $flags = WEBSOCKET_FLAG_FIN,
    ): string {
        if ($data instanceof CloseFrame) {
            $opcode = WEBSOCKET_OPCODE_CLOSE;
            $data = pack('n', $data->code) . $data->reason;
        } elseif ($data instanceof self) {
            [$opcode, $flags, $data] = [$data->opcode, $data->flags, $data->data];
        }
        $length = strlen((string) $data);
        $first = ($flags & WEBSOCKET_FLAG_FIN ? 0x80 : 0) | ($flags & WEBSOCKET_FLAG_RSV1 ? 0x40 : 0) | $opcode;
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
        return $head . $key . self::mask((string) $data, $key);
    }

    /** The first frame of some bytes; false where they are no whole frame. */
    public static function unpack(string $bytes): Frame|false
    {
        if (strlen($bytes) < 2) {
            return false;
        }
        [$first, $second] = [ord($bytes[0]), ord($bytes[1])];
        $length = $second & 0x7f;
        $at = 2;
        if ($length >= 126) {
            $size = $length === 126 ? 2 : 8;
            if (strlen($bytes) < 2 + $size) {
                return false;
            }
            $length = unpack($size === 2 ? 'n' : 'J', $bytes, 2)[1];
            $at += $size;
        }
        $masked = ($second & 0x80) !== 0;
        $end = $at + ($masked ? 4 : 0) + $length;
        if ($length < 0 || strlen($bytes) < $end) {
            return false;
        }
        $data = substr($bytes, $end - $length, $length);
        if ($masked) {
            $data = self::mask($data, substr($bytes, $at, 4));
        }
        $opcode = $first & 0x0f;
        $frame = new Frame();
        if ($opcode === WEBSOCKET_OPCODE_CLOSE) {
            $frame = new CloseFrame();
            $frame->code = strlen($data) >= 2 ? unpack('n', $data)[1] : WEBSOCKET_CLOSE_NORMAL;
            $frame->reason = substr($data, 2);
        }
        $frame->data = $data;
        $frame->opcode = $opcode;
        $frame->finish = ($first & 0x80) !== 0;
        $frame->flags = ($frame->finish ? WEBSOCKET_FLAG_FIN : 0)
            | ($first & 0x40 ? WEBSOCKET_FLAG_RSV1 : 0)
            | ($masked ? SWOOLE_WEBSOCKET_FLAG_MASK : 0);
        return $frame;
    }

    private static function mask(string $data, string $key): string
    {
        return $data ^ substr(str_repeat($key, intdiv(strlen($data), 4) + 1), 0, strlen($data));
    }
}
