<?php

declare(strict_types=1);

namespace Wsd;

// Named here, PHP compiles calls of them without a look at the namespace at run time.
use function strlen, substr;

/**
 * The answer to one plain HTTP request, for as long as it is not ended: in one piece, in parts that
 * leave at once, or later, by a timer, a task's result or another event.
 *
 *     $app->on('request', function (Wsd\App $app, Wsd\Request $request, Wsd\Reply $reply) {
 *         $reply->begin(200, [['content-type', 'text/event-stream']]);
 *         foreach (progress() as $step) {
 *             $reply->write("data: $step\n\n") || break;   // the visitor is gone
 *         }
 *         $reply->end();
 *     });
 */
final class Reply
{
    /** A part is not longer: what it holds is held by worker and process as well. */
    public const PART_BYTES = 256 << 10;

    /** Bytes that were sent and not taken by the client yet. */
    private int $unread = 0;
    private bool $begun = false;
    private bool $open = true;
    private bool $gone = false;
    private bool $kept = false;

    /** @internal */
    public function __construct(private App $app, private int $id)
    {
    }

    /**
     * Sends status and fields; the body follows by write(). A field content-length says how long it
     * will be; without, it is chunked.
     *
     * @param list<array{0: string, 1: string}> $fields
     * @return bool false when it was begun before, or nobody waits for it
     */
    public function begin(int $status = 200, array $fields = []): bool
    {
        if (!$this->open || $this->begun || $this->gone) {
            return false;
        }
        $this->begun = true;
        $this->app->reply($this, Protocol::RESPONSE, Protocol::FLAG_MORE, $status, Protocol::fields($fields));
        return true;
    }

    /** Sends a part of the body now, and waits while the client is slow. False when it is gone. */
    public function write(string $bytes): bool
    {
        if (!$this->begun && !$this->begin()) {
            return false;
        }
        for ($at = 0; $at < strlen($bytes) && $this->isWritable(); $at += self::PART_BYTES) {
            $part = $at === 0 && strlen($bytes) <= self::PART_BYTES ? $bytes : substr($bytes, $at, self::PART_BYTES);
            $window = (int) ($this->app->fact('body_window') ?? self::PART_BYTES);
            while ($this->unread > 0 && $this->unread + strlen($part) > $window && $this->isWritable()) {
                if (!$this->app->await()) {
                    $this->gone = true;
                }
            }
            if ($this->isWritable()) {
                $this->unread += strlen($part);
                $this->app->reply($this, Protocol::BODY, Protocol::FLAG_MORE, 0, $part);
            }
        }
        return $this->isWritable();
    }

    /** Sends the rest of the body and ends it. False when the client is gone. */
    public function end(string $bytes = ''): bool
    {
        if (!$this->open) {
            return false;
        }
        if (!$this->begun) {
            return $this->send(new Response(200, $bytes));
        }
        $there = $this->write($bytes);
        $this->app->reply($this, Protocol::BODY, 0, 0, '');
        $this->close();
        return $there;
    }

    /** Sends an answer in one piece. */
    public function send(Response $response): bool
    {
        if (!$this->open || $this->begun) {
            return false;
        }
        if (strlen($response->body) > self::PART_BYTES) {
            $length = ['content-length', (string) strlen($response->body)];
            return $this->begin($response->status, [...$response->fields, $length])
                && $this->end($response->body);
        }
        // A field that is no text fails here, while the answer can still be status 500.
        $payload = Protocol::fields($response->fields) . $response->body;
        $this->begun = true;
        $this->open = false;
        $this->app->replyWhole($this->id, $response->status, $payload);
        return !$this->gone;
    }

    /**
     * Sends a file, or a range of it. The worker is given the open file where ext-sockets is there;
     * else the file is read here and sent in parts.
     *
     * @param list<array{0: string, 1: string}> $fields
     * @param int|null $length null is up to the file's end
     * @return bool false when it cannot be read or has no such range; nothing was sent then
     */
    public function file(
        string $path,
        int $status = 200,
        array $fields = [],
        int $offset = 0,
        ?int $length = null,
    ): bool {
        if (!$this->open || $this->begun || !is_file($path) || ($file = @fopen($path, 'rb')) === false) {
            return false;
        }
        $size = fstat($file)['size'];
        $length ??= $size - $offset;
        if ($offset < 0 || $length < 0 || $offset + $length > $size) {
            return false;
        }
        $this->begun = true;
        $payload = pack('PP', $offset, $length) . Protocol::fields($fields);
        if ($this->app->replyFile($this, $status, $payload, $file)) {
            $this->close();
            return true;
        }
        $this->begun = false;
        return $this->begin($status, [...$fields, ['content-length', (string) $length]])
            && $this->copy($file, $offset, $length);
    }

    /** Ends it where it cannot go on: with status 500, or broken off where it was begun. */
    public function fail(): void
    {
        if ($this->open && !$this->begun) {
            $this->send(new Response(500));
        } elseif ($this->open) {
            $this->app->reply($this, Protocol::BODY, 0, 1, '');
            $this->close();
        }
    }

    /** Leaves it to the server, which answers 404. */
    public function pass(): void
    {
        if ($this->open && !$this->begun) {
            $this->open = false;
            $this->app->replyWhole($this->id, 0, '');
        }
    }

    /** The answer comes after the handler has returned; the caller keeps this object for it. */
    public function later(): self
    {
        $this->kept = true;
        return $this;
    }

    /** Whether more may be sent: it is not ended, and the client is there as far as is known. */
    public function isWritable(): bool
    {
        return $this->open && !$this->gone;
    }

    /** Whether it is not ended. */
    public function isOpen(): bool
    {
        return $this->open;
    }

    public function isBegun(): bool
    {
        return $this->begun;
    }

    /** @internal whether the handler said that the answer comes later */
    public function isKept(): bool
    {
        return $this->open && ($this->kept || $this->begun);
    }

    /** @internal */
    public function id(): int
    {
        return $this->id;
    }

    /** @internal the client has taken so many bytes, or is gone */
    public function taken(int $bytes, bool $gone): void
    {
        $this->unread = max(0, $this->unread - $bytes);
        $this->gone = $this->gone || $gone;
    }

    /** @param resource $file */
    private function copy($file, int $offset, int $length): bool
    {
        fseek($file, $offset);
        while ($length > 0) {
            $part = fread($file, min($length, self::PART_BYTES));
            if ($part === false || $part === '' || !$this->write($part)) {
                break;
            }
            $length -= strlen($part);
        }
        // A file that became shorter breaks the answer off: the worker counts.
        $this->end();
        return true;
    }

    private function close(): void
    {
        $this->open = false;
        $this->app->replied($this);
    }
}
