<?php

declare(strict_types=1);

namespace Wsd;

// Named here, PHP compiles calls of them without a look at the namespace at run time.
use function count, pack, strlen, substr, unpack;

/** Numbers and payloads of the app protocol, version 2: docs/app-protocol.md. */
final class Protocol
{
    public const VERSION = 2;
    public const HEADER_BYTES = 20;
    public const HEADER = 'Vlength/Ckind/Cflags/vcode/Vid/Pfd';

    public const HELLO = 1;
    public const OPEN = 2;
    public const MESSAGE = 3;
    public const CLOSE = 4;
    public const REQUEST = 5;
    public const ATTACH = 6;
    public const TICK = 7;
    public const PIPE = 8;
    public const SHUTDOWN = 9;
    public const PRESENCE = 10;

    public const READY = 32;
    public const DONE = 33;
    public const PUSH = 34;
    public const BROADCAST = 35;
    public const DISCONNECT = 36;
    public const ACCEPT = 37;
    public const REFUSE = 38;
    public const RESPONSE = 39;
    public const INFO = 40;
    public const EXISTS = 41;
    public const LIST = 42;
    public const KEEP = 43;
    public const EVERY = 44;
    public const SEND = 45;
    public const STATS = 46;
    public const END = 47;
    public const BODY = 48;
    public const READ = 49;
    public const JOIN = 50;
    public const LEAVE = 51;
    public const BIND = 52;
    public const SESSION = 53;
    public const PUBLISH = 54;
    public const MEMBERS = 55;
    public const PROTECT = 56;
    public const CLOSE_USER = 57;
    public const EXPIRE = 58;

    public const VERDICT = 64;
    public const TAKEN = 69;
    public const NOTE = 70;
    public const PLACE = 71;
    public const PART = 72;
    public const TALLY = 73;
    public const MEMBERS_ANSWER = 74;

    /** What the worker says that is neither an event nor an answer. */
    public const TOLD = [self::TAKEN, self::NOTE, self::PLACE];

    /** The code of SHUTDOWN where the worker ends too. */
    public const WORKER_LEAVES = 2;

    public const FLAG_ANSWER = 1;
    public const FLAG_ALL = 1;
    public const FLAG_LATER = 2;
    public const FLAG_UNTAKEN = 1;
    public const FLAG_COMPRESSED = 2;
    public const FLAG_VERDICT = 1;
    public const FLAG_MORE = 1;
    public const FLAG_HELD = 1;
    public const FLAG_FILE = 2;
    public const FLAG_HERE = 2;
    public const TO_TASK = 2;
    public const TO_ANY = 4;
    public const AS_NOTE = 8;
    public const TO_USER = 16;
    public const FLAG_AGAIN = 128;

    public const WANT_HANDSHAKE = 1;
    public const WANT_OPEN = 2;
    public const WANT_MESSAGE = 4;
    public const WANT_CLOSE = 8;
    public const WANT_REQUEST = 16;
    public const WANT_ATTACH = 32;
    public const IN_ORDER = 64;
    public const WANT_CONTROL = 128;
    /** Of the field fd of READY. */
    public const WANT_PRESENCE = 1;
    public const WANT_PLAIN = 2;
    public const WANT_HAD = 4;
    /** It answers requests together where FLAG_TOGETHER says that it may. */
    public const GATHERS = 8;
    /** Of REQUEST and of CLOSE. */
    public const FLAG_FIRST = 2;
    public const FLAG_PLAIN = 4;
    public const FLAG_HAD = 8;
    /** Of REQUEST: its DONE may be sent with that of the next one. */
    public const FLAG_TOGETHER = 4;

    public const VERDICTS = ['queued', 'relayed', 'full', 'gone', 'too_big', 'unknown', 'invalid_text', 'invalid',
        'no_user', 'local_only'];

    /** One frame as bytes. */
    public static function frame(
        int $kind,
        int $flags = 0,
        int $code = 0,
        int $id = 0,
        int $fd = 0,
        string $payload = '',
    ): string {
        // The head is told as few numbers: pack() takes time for each of its parts.
        $head = strlen($payload) | $kind << 32 | $flags << 40 | ($code & 0xffff) << 48;
        return pack('PVP', $head, $id, $fd) . $payload;
    }

    public static function string(string $text): string
    {
        return pack('V', strlen($text)) . $text;
    }

    /** @param list<array{0: string, 1: string}> $fields names and values */
    public static function fields(array $fields): string
    {
        $bytes = pack('V', count($fields));
        foreach ($fields as [$name, $value]) {
            $length = strlen($name);
            $bytes .= pack("Va{$length}V", $length, $name, strlen($value)) . $value;
        }
        return $bytes;
    }

    /** Reads a string at $at and moves $at behind it. */
    public static function readString(string $payload, int &$at): string
    {
        $length = unpack('V', $payload, $at)[1];
        $text = substr($payload, $at + 4, $length);
        $at += 4 + $length;
        return $text;
    }

    /**
     * Reads the payload of OPEN, REQUEST and ATTACH.
     *
     * @param (callable(int): HeldBody)|null $held makes a body of that length which the worker holds
     */
    public static function request(int $fd, string $payload, ?callable $held = null): Request
    {
        // No call for each string, since every request has many.
        $head = [];
        for ($at = 0, $i = 0; $i < 7; $i++) {
            $length = unpack('V', $payload, $at)[1];
            $head[] = substr($payload, $at + 4, $length);
            $at += 4 + $length;
        }
        $fields = [];
        for ($count = unpack('V', $payload, $at)[1], $at += 4; $count > 0; $count--) {
            $length = unpack('V', $payload, $at)[1];
            $name = substr($payload, $at + 4, $length);
            $at += 4 + $length;
            $length = unpack('V', $payload, $at)[1];
            $fields[] = [$name, substr($payload, $at + 4, $length)];
            $at += 4 + $length;
        }
        $body = $held === null ? substr($payload, $at) : $held(unpack('P', $payload, $at)[1]);
        return new Request(
            $fd, $head[0], $head[1], $head[2], $head[3], $head[4], $head[5], $head[6], $fields, $body,
        );
    }
}
