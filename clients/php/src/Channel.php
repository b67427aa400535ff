<?php

declare(strict_types=1);

namespace Wsd;

// Named here, PHP compiles calls of them without a look at the namespace at run time.
use function fwrite, is_resource, strlen, substr, unpack;

/** The socket to the worker: whole frames in, bytes out in few writes. */
final class Channel
{
    private const READ_BYTES = 65536;

    /** @var resource */
    private $socket;
    private string $input = '';
    private int $at = 0;
    /** Bytes that leave with flush(). App adds to them itself, since a call for each event costs. */
    public string $output = '';
    private \Socket|false|null $raw = null;

    /** @param resource $socket a blocking stream socket */
    public function __construct($socket)
    {
        stream_set_blocking($socket, true);
        stream_set_read_buffer($socket, 0);
        stream_set_write_buffer($socket, 0);
        $this->socket = $socket;
    }

    /** The channel of a process that wsd started, or null in any other. */
    public static function ofEnvironment(): ?self
    {
        $number = getenv('WSD_APP_FD');
        if ($number === false || (string) (int) $number !== $number) {
            return null;
        }
        $socket = @fopen("php://fd/$number", 'r+');
        return $socket === false ? null : new self($socket);
    }

    /** Queues bytes. They leave with flush(). */
    public function write(string $bytes): void
    {
        $this->output .= $bytes;
    }

    /** Queues bytes among those that are queued. */
    public function insert(int $at, string $bytes): void
    {
        $this->output = $at === strlen($this->output)
            ? $this->output . $bytes
            : substr_replace($this->output, $bytes, $at, 0);
    }

    /** Whether bytes were read of which no frame was taken yet. */
    public function has(): bool
    {
        return $this->at < strlen($this->input);
    }

    /** Ends the connection to the worker. */
    public function close(): void
    {
        fclose($this->socket);
    }

    public function closed(): bool
    {
        return !is_resource($this->socket);
    }

    /**
     * Sends a frame with a descriptor beside it. False where that cannot be: ext-sockets is missing.
     *
     * @param resource $file an open file
     */
    public function sendWith(string $frame, $file): bool
    {
        if (!function_exists('socket_import_stream') || !defined('SCM_RIGHTS')) {
            return false;
        }
        $this->flush();
        $this->raw ??= @socket_import_stream($this->socket);
        $beside = [['level' => SOL_SOCKET, 'type' => SCM_RIGHTS, 'data' => [$file]]];
        $sent = $this->raw ? @socket_sendmsg($this->raw, ['iov' => [$frame], 'control' => $beside], 0) : false;
        if ($sent === false) {
            return false;
        }
        $this->output = substr($frame, $sent);
        $this->flush();
        return true;
    }

    /** Sends what is queued; blocks where the worker is slow. */
    public function flush(): void
    {
        $bytes = $this->output;
        $this->output = '';
        while ($bytes !== '' && is_resource($this->socket)) {
            $sent = @fwrite($this->socket, $bytes);
            if ($sent === false || $sent === 0) {
                return; // The worker is gone, as the next read will say.
            }
            $bytes = $sent === strlen($bytes) ? '' : substr($bytes, $sent);
        }
    }

    /**
     * The next whole frame that was read already, with its 'payload'; null for none.
     *
     * @return array{kind: int, flags: int, code: int, id: int, fd: int, payload: string}|null
     */
    public function next(): ?array
    {
        $frame = $this->take(false);
        return $frame === null ? null : [
            'kind' => $frame['h'] >> 32 & 0xff,
            'flags' => $frame['h'] >> 40 & 0xff,
            'code' => $frame['h'] >> 48 & 0xffff,
            'id' => $frame['i'],
            'fd' => $frame['f'],
            'payload' => $frame['p'],
        ];
    }

    /**
     * As next(), or where $often, only a message or a request: its head as one number (length, kind, flags
     * and code), id, fd and payload. The names have one letter since such strings are there already, while
     * unpack() makes a string for a longer name, in each frame.
     *
     * @return array{h: int, i: int, f: int, p: string}|null
     */
    public function take(bool $often): ?array
    {
        $at = $this->at + Protocol::HEADER_BYTES;
        $have = strlen($this->input) - $at;
        if ($have < 0) {
            return null;
        }
        $frame = unpack('Ph/Vi/Pf', $this->input, $this->at);
        $length = $frame['h'] & 0xffffffff;
        if ($have < $length) {
            return null;
        }
        if ($often) {
            $kind = $frame['h'] >> 32 & 0xff;
            if ($kind !== Protocol::MESSAGE && $kind !== Protocol::REQUEST) {
                return null;
            }
        }
        $frame['p'] = substr($this->input, $at, $length);
        $this->at = $at + $length;
        return $frame;
    }

    /** Waits for bytes. False when the worker is gone. */
    public function read(?float $seconds = null): bool
    {
        // A read that waits would do without the look. But the kernel wakes such a read, in vain, each time
        // the worker takes from the socket what this process has sent.
        if (!$this->readable($seconds)) {
            return true;
        }
        for ($failures = 0; $failures < 8; $failures++) {
            $bytes = @stream_socket_recvfrom($this->socket, self::READ_BYTES);
            if ($bytes === '') {
                return false;
            }
            if ($bytes !== false) {
                $this->append($bytes);
                return true;
            }
            // A signal broke the call; its handler, if any, runs before the next turn.
        }
        return false;
    }

    private function append(string $bytes): void
    {
        if ($this->at === strlen($this->input)) {
            $this->input = $bytes;
        } else {
            if ($this->at > 0) {
                $this->input = substr($this->input, $this->at);
            }
            $this->input .= $bytes;
        }
        $this->at = 0;
    }

    private function readable(?float $seconds): bool
    {
        $read = [$this->socket];
        $none = null;
        $whole = $seconds === null ? null : (int) $seconds;
        $micros = $seconds === null ? null : (int) (($seconds - $whole) * 1e6);
        return (bool) @stream_select($read, $none, $none, $whole, $micros);
    }
}
