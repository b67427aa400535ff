<?php

declare(strict_types=1);

namespace Wsd;

// Named here, PHP compiles calls of them without a look at the namespace at run time.
use function is_string, strlen, strrpos, substr;

/**
 * The request that opened a connection, or a plain HTTP request ($fd is 0 then).
 *
 * @property-read string $body of an HTTP request, all of it; in `attach` what `keep` last gave. A long
 *     body is read from the worker then, and takes as much memory as it is long; see parts()
 */
final class Request
{
    private readonly string|HeldBody $content;

    /**
     * @param list<array{0: string, 1: string}> $fields header fields, names in lower case
     * @param string $peer   the other end of the TCP connection, "address:port"; empty on unix:
     * @param string $client the client's address: the peer's, or what a trusted proxy says
     */
    public function __construct(
        public readonly int $fd,
        public readonly string $method,
        public readonly string $target,
        public readonly string $subprotocol,
        public readonly string $peer,
        public readonly string $client,
        public readonly string $local,
        public readonly string $version,
        public readonly array $fields,
        string|HeldBody $body,
    ) {
        $this->content = $body;
    }

    public function __get(string $name): mixed
    {
        if ($name === 'body') {
            return is_string($this->content) ? $this->content : $this->content->whole();
        }
        trigger_error("Undefined property: Wsd\\Request::\$$name", E_USER_WARNING);
        return null;
    }

    public function __isset(string $name): bool
    {
        return $name === 'body';
    }

    /** Bytes of the body. */
    public function length(): int
    {
        return is_string($this->content) ? strlen($this->content) : $this->content->length;
    }

    /** Whether the worker holds the body, since it is longer than 256 KiB. */
    public function isHeld(): bool
    {
        return !is_string($this->content);
    }

    /** @return iterable<string> the body in parts, of which only one is in memory */
    public function parts(): iterable
    {
        if (!is_string($this->content)) {
            return $this->content->parts();
        }
        return $this->content === '' ? [] : [$this->content];
    }

    public function path(): string
    {
        return explode('?', $this->target, 2)[0];
    }

    public function queryString(): string
    {
        return explode('?', $this->target, 2)[1] ?? '';
    }

    /** @return array{0: string, 1: int} the peer's address and port; '' and 0 on unix: */
    public function peerAddress(): array
    {
        return self::address($this->peer);
    }

    /** @return array{0: string, 1: int} the server's address and port; '' and 0 on unix: */
    public function localAddress(): array
    {
        return self::address($this->local);
    }

    /** @return array{0: string, 1: int} */
    private static function address(string $text): array
    {
        $colon = strrpos($text, ':');
        if ($colon === false) {
            return [$text, 0];
        }
        $host = $text[0] === '[' ? trim(substr($text, 0, $colon), '[]') : substr($text, 0, $colon);
        return [$host, (int) substr($text, $colon + 1)];
    }

    /** @return array<array-key, mixed> the query's parameters, as PHP's $_GET has them */
    public function query(): array
    {
        $query = $this->queryString();
        if ($query === '') {
            return [];
        }
        return Variables::parse($query);
    }

    /** The first header field of that name. */
    public function header(string $name): ?string
    {
        $name = strtolower($name);
        foreach ($this->fields as [$key, $value]) {
            if ($key === $name) {
                return $value;
            }
        }
        return null;
    }

    /** @return array<string, string> every header field; several of one name are joined */
    public function headers(): array
    {
        $headers = [];
        foreach ($this->fields as [$name, $value]) {
            $glue = $name === 'cookie' ? '; ' : ', ';
            $headers[$name] = isset($headers[$name]) ? $headers[$name] . $glue . $value : $value;
        }
        return $headers;
    }

    /**
     * Cookies as PHP's $_COOKIE has them: `+` stays one, a cookie without `=` is empty, `a[b]` is
     * nested, and of two with one name the first counts.
     *
     * @return array<array-key, mixed>
     */
    public function cookies(): array
    {
        $pairs = [];
        foreach ($this->fields as [$name, $line]) {
            if ($name !== 'cookie') {
                continue;
            }
            foreach (explode(';', $line) as $pair) {
                [$key, $value] = explode('=', ltrim($pair, " \t\r\n"), 2) + [1 => ''];
                $pair = urlencode($key) . '=' . rawurlencode(rawurldecode($value));
                if ($key !== '') {
                    str_ends_with($key, '[]') ? $pairs[] = $pair : $pairs["=$key"] ??= $pair;
                }
            }
        }
        if ($pairs === []) {
            return [];
        }
        return Variables::parse(implode('&', $pairs));
    }
}
