<?php

declare(strict_types=1);

namespace Wsd;

/** Reads multipart/form-data (RFC 7578), which PHP itself does only under a web server. */
final class Multipart
{
    private const PARTS_MAX = 1000;

    /** @return array{0: array<array-key, mixed>|null, 1: array<array-key, mixed>|null} post and files */
    public static function parse(string $body, string $boundary): array
    {
        $pairs = [];
        $files = [];
        $parts = explode("\r\n--$boundary", "\r\n" . $body, self::PARTS_MAX + 2);
        foreach (array_slice($parts, 1) as $part) {
            if (str_starts_with($part, '--')) {
                break;
            }
            [$head, $data] = explode("\r\n\r\n", ltrim($part, " \t"), 2) + [1 => ''];
            if (!preg_match('/\bname="((?:[^"\\\\]|\\\\.)*)"/i', $head, $name)) {
                continue;
            }
            $name = stripslashes($name[1]);
            if (!preg_match('/\bfilename="((?:[^"\\\\]|\\\\.)*)"/i', $head, $filename)) {
                $pairs[] = urlencode($name) . '=' . urlencode($data);
                continue;
            }
            self::put($files, $name, self::file(stripslashes($filename[1]), $head, $data));
        }
        parse_str(implode('&', $pairs), $post);
        return [$post ?: null, $files ?: null];
    }

    private static function file(string $name, string $head, string $data): array
    {
        if ($name === '') {
            return ['name' => '', 'type' => '', 'tmp_name' => '', 'error' => UPLOAD_ERR_NO_FILE, 'size' => 0];
        }
        preg_match('/^content-type:[ \t]*([^\r\n]*)/im', $head, $type);
        $path = tempnam(sys_get_temp_dir(), 'wsd-upload-');
        $error = $path === false || file_put_contents($path, $data) !== strlen($data)
            ? UPLOAD_ERR_CANT_WRITE
            : UPLOAD_ERR_OK;
        return [
            'name' => basename(strtr($name, '\\', '/')),
            'type' => $type[1] ?? '',
            'tmp_name' => (string) $path,
            'error' => $error,
            'size' => strlen($data),
        ];
    }

    /** "a[b][]" names a place in nested arrays, as in PHP's forms. */
    private static function put(array &$files, string $name, array $file): void
    {
        if (!preg_match('/^([^\[]+)((?:\[[^\]]*\])*)$/', $name, $found)) {
            $files[$name] = $file;
            return;
        }
        preg_match_all('/\[([^\]]*)\]/', $found[2], $keys);
        $at = &$files[$found[1]];
        foreach ($keys[1] as $key) {
            $at = is_array($at) ? $at : [];
            if ($key === '') {
                $at = &$at[];
            } else {
                $at = &$at[$key];
            }
        }
        $at = $file;
    }
}
