<?php

declare(strict_types=1);

namespace Wsd;

/** The answer to a plain HTTP request, or to a handshake that is refused. */
final class Response
{
    /** @param list<array{0: string, 1: string}> $fields header fields */
    public function __construct(
        public int $status = 200,
        public string $body = '',
        public array $fields = [],
    ) {
        // A number that does not fit in a frame would be cut to another status.
        $this->status = $status < 0 || $status > 0xffff ? 0xffff : $status;
    }

    /** The first header field of that name, in small letters. */
    public function header(string $name): ?string
    {
        foreach ($this->fields as [$key, $value]) {
            if (strtolower($key) === $name) {
                return $value;
            }
        }
        return null;
    }

    public static function text(string $body, int $status = 200): self
    {
        return new self($status, $body, [['content-type', 'text/plain; charset=utf-8']]);
    }

    public static function html(string $body, int $status = 200): self
    {
        return new self($status, $body, [['content-type', 'text/html; charset=utf-8']]);
    }

    public static function json(mixed $value, int $status = 200): self
    {
        $body = json_encode($value, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE);
        return new self($status, $body, [['content-type', 'application/json']]);
    }
}
