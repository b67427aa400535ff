<?php

declare(strict_types=1);

namespace Wsd;

/**
 * Files below a directory, for plain HTTP: Swoole's enable_static_handler. The worker reads and sends them.
 *
 * Nothing outside of the directory is served, whatever the path or a link says, and no name that begins
 * with a dot.
 */
final class StaticFiles
{
    private const PATH_BYTES_MAX = 4096;

    private string $root;
    /** @var list<string> */
    private array $locations;
    /** @var list<string> */
    private array $indexes;

    /** @param array<string, mixed> $setting what was given to set() */
    private function __construct(string $root, array $setting)
    {
        $this->root = $root;
        $this->locations = array_values((array) ($setting['static_handler_locations'] ?? []));
        $this->indexes = array_values((array) ($setting['http_index_files'] ?? []));
    }

    /**
     * @param array<string, mixed> $setting what was given to set()
     * @throws \RuntimeException where document_root is no directory
     */
    public static function of(array $setting): ?self
    {
        if (empty($setting['enable_static_handler'])) {
            return null;
        }
        $root = realpath((string) ($setting['document_root'] ?? ''));
        if ($root === false || !is_dir($root) || ($setting['document_root'] ?? '') === '') {
            throw new \RuntimeException('enable_static_handler needs document_root, which has to be a directory');
        }
        return new self($root, $setting);
    }

    /** Answers with a file, where the request names one. */
    public function serve(Request $request, Reply $reply): bool
    {
        if ($request->method !== 'GET' && $request->method !== 'HEAD') {
            return false;
        }
        $path = rawurldecode($request->path());
        $located = array_filter($this->locations, fn (string $start) => str_starts_with($path, $start)) !== [];
        if ($this->locations !== [] && !$located) {
            return false;
        }
        $file = $this->file($path);
        if ($file === null || !($located || MediaType::isKnown($file))) {
            $located && $reply->send(new Response(404));
            return $located;
        }
        return $this->answer($request, $reply, $file);
    }

    /** The file of a path, null where there is none that may be served. */
    private function file(string $path): ?string
    {
        if (!str_starts_with($path, '/') || str_contains($path, "\0") || str_contains($path, '\\')
            || strlen($path) > self::PATH_BYTES_MAX) {
            return null;
        }
        // A browser resolves these itself. Here they would lead from a location to what stands beside it.
        if (preg_match('~/\.\.?(?:/|\z)~', $path)) {
            return null;
        }
        // What was a directory may be a link meanwhile.
        clearstatcache(true);
        $found = realpath($this->root . $path);
        if ($found !== false && is_dir($found)) {
            $there = array_filter($this->indexes, fn (string $index) => is_file("$found/$index"));
            $found = $there === [] ? false : realpath("$found/" . reset($there));
        }
        $inside = $found !== false && str_starts_with($found, rtrim($this->root, '/') . '/');
        $hidden = $inside && str_contains(substr($found, strlen($this->root)), '/.');
        return $inside && !$hidden && is_file($found) && is_readable($found) ? $found : null;
    }

    private function answer(Request $request, Reply $reply, string $file): bool
    {
        $stat = stat($file);
        $modified = gmdate('D, d M Y H:i:s', $stat['mtime']) . ' GMT';
        $since = strtotime((string) $request->header('if-modified-since'));
        if ($since !== false && $since >= $stat['mtime']) {
            $reply->send(new Response(304, '', [['last-modified', $modified]]));
            return true;
        }
        $fields = [['content-type', MediaType::of($file)], ['last-modified', $modified]];
        $range = $request->header('range');
        $condition = $request->header('if-range');
        // RFC 9110 13.1.5: another date than the file's, and an ETag, ask for the whole.
        $part = $range === null || ($condition !== null && $condition !== $modified)
            ? [0, $stat['size'], 200]
            : self::part($range, $stat['size']);
        if ($part === null) {
            $reply->send(new Response(416, '', [['content-range', "bytes */{$stat['size']}"]]));
            return true;
        }
        [$offset, $length, $status] = $part;
        if ($status === 206) {
            $last = $offset + $length - 1;
            $fields[] = ['content-range', "bytes $offset-$last/{$stat['size']}"];
        }
        if ($request->method === 'HEAD') {
            $reply->send(new Response($status, '', [...$fields, ['content-length', (string) $length]]));
            return true;
        }
        return $reply->file($file, $status, $fields, $offset, $length);
    }

    /**
     * One range (RFC 9110 14.1.2). Of several the whole file is sent, as section 14.2 allows.
     *
     * @return array{0: int, 1: int, 2: int}|null offset, length and status; null where there is no such range
     */
    private static function part(string $range, int $size): ?array
    {
        $one = preg_match('/^bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})$/i', $range, $found) === 1;
        if (!$one || $found[1] . $found[2] === '') {
            return [0, $size, 200];
        }
        [, $first, $last] = $found;
        if ($first === '') {
            $length = min((int) $last, $size);
            return $length > 0 ? [$size - $length, $length, 206] : null;
        }
        $end = $last === '' ? $size - 1 : min((int) $last, $size - 1);
        if ($last !== '' && (int) $last < (int) $first) {
            return [0, $size, 200];
        }
        return (int) $first < $size ? [(int) $first, $end - (int) $first + 1, 206] : null;
    }
}
