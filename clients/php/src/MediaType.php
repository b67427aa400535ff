<?php

declare(strict_types=1);

namespace Wsd;

/** What a file's name says of its content, for Content-Type. */
final class MediaType
{
    private const TYPES = [
        'html' => 'text/html; charset=utf-8', 'htm' => 'text/html; charset=utf-8', 'css' => 'text/css',
        'js' => 'text/javascript', 'mjs' => 'text/javascript', 'json' => 'application/json',
        'map' => 'application/json', 'txt' => 'text/plain; charset=utf-8', 'md' => 'text/markdown; charset=utf-8',
        'csv' => 'text/csv', 'xml' => 'application/xml', 'png' => 'image/png', 'jpg' => 'image/jpeg',
        'jpeg' => 'image/jpeg', 'gif' => 'image/gif', 'svg' => 'image/svg+xml', 'webp' => 'image/webp',
        'avif' => 'image/avif', 'ico' => 'image/x-icon', 'woff' => 'font/woff', 'woff2' => 'font/woff2',
        'ttf' => 'font/ttf', 'otf' => 'font/otf', 'mp3' => 'audio/mpeg', 'ogg' => 'audio/ogg', 'wav' => 'audio/wav',
        'mp4' => 'video/mp4', 'webm' => 'video/webm', 'pdf' => 'application/pdf', 'zip' => 'application/zip',
        'gz' => 'application/gzip', 'wasm' => 'application/wasm', 'webmanifest' => 'application/manifest+json',
    ];

    /** @var array<string, string> */
    private static array $own = [];

    /** The type for a file of that name; application/octet-stream where the name says none. */
    public static function of(string $filename): string
    {
        $suffix = self::suffix($filename);
        return self::$own[$suffix] ?? self::TYPES[$suffix] ?? 'application/octet-stream';
    }

    public static function isKnown(string $filename): bool
    {
        return isset(self::$own[self::suffix($filename)]) || isset(self::TYPES[self::suffix($filename)]);
    }

    /** Gives names that end so a type, in this process. */
    public static function add(string $suffix, string $type): void
    {
        self::$own[strtolower($suffix)] = $type;
    }

    private static function suffix(string $filename): string
    {
        return strtolower(pathinfo($filename, PATHINFO_EXTENSION));
    }
}
