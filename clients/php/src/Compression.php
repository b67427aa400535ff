<?php

declare(strict_types=1);

namespace Wsd;

/** Swoole's http_compression: bodies that are sent in one piece, by gzip or deflate. Off unless it is set. */
final class Compression
{
    private const MIN_LENGTH = 20;
    /** What is compressed already. */
    private const NOT_AGAIN = '~^(image/(?!svg)|audio/|video/|font/woff|application/(zip|gzip|pdf|wasm))~i';

    private int $level;
    private int $least;
    /** @var list<string> */
    private array $types;

    /** @param array<string, mixed> $setting what was given to set() */
    private function __construct(private string $encoding, array $setting)
    {
        $level = $setting['http_compression_level'] ?? $setting['compression_level']
            ?? $setting['http_gzip_level'] ?? 1;
        $this->level = max(1, min(9, (int) $level));
        $this->least = (int) ($setting['http_compression_min_length'] ?? $setting['compression_min_length']
            ?? self::MIN_LENGTH);
        $this->types = array_map(strtolower(...), (array) ($setting['http_compression_types']
            ?? $setting['compression_types'] ?? []));
    }

    /** For an answer to that request, null where it is not wanted or PHP has no zlib. */
    public static function of(array $setting, Request $request): ?self
    {
        if (empty($setting['http_compression']) || !function_exists('gzencode')) {
            return null;
        }
        $accepted = [];
        foreach (explode(',', strtolower((string) $request->header('accept-encoding'))) as $part) {
            if (preg_match('/^\s*([a-z*-]+)\s*(?:;\s*q\s*=\s*([0-9.]+))?\s*$/', $part, $found)) {
                $accepted[$found[1]] = (float) ($found[2] ?? 1);
            }
        }
        foreach (['gzip', 'deflate'] as $encoding) {
            if (($accepted[$encoding] ?? $accepted['*'] ?? 0) > 0) {
                return new self($encoding, $setting);
            }
        }
        return null;
    }

    /** Compresses the body of an answer, where that is of use. */
    public function apply(Response $response): void
    {
        $type = strtolower(trim(explode(';', (string) $response->header('content-type'))[0]));
        $wanted = $this->types === [] ? !preg_match(self::NOT_AGAIN, $type) : in_array($type, $this->types, true);
        $short = strlen($response->body) < max(1, $this->least);
        if (!$wanted || $short || $response->header('content-encoding') !== null) {
            return;
        }
        $response->body = (string) ($this->encoding === 'gzip'
            ? gzencode($response->body, $this->level)
            : gzcompress($response->body, $this->level));
        $response->fields[] = ['content-encoding', $this->encoding];
        $response->fields[] = ['vary', 'accept-encoding'];
    }
}
