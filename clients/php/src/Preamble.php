<?php

declare(strict_types=1);

namespace Wsd;

/**
 * What a script prints before start(). Each process runs the whole script, and the process that the user
 * started has printed that once: the others drop it. Where one ends before start(), what it printed is shown.
 */
final class Preamble
{
    private static int $level = 0;

    /** From here on, until start(), what is printed waits. */
    public static function begin(): void
    {
        if (self::$level === 0 && getenv('WSD_APP_FD') !== false && self::isOfMaster() && ob_start()) {
            self::$level = ob_get_level();
        }
    }

    /** Not a program that such a process has started, which has its environment. */
    private static function isOfMaster(): bool
    {
        // The second word behind the name in parentheses.
        $words = explode(' ', substr((string) strrchr((string) @file_get_contents('/proc/self/stat'), ')'), 2));
        $parent = (int) ($words[1] ?? 0);
        return $parent > 0 && str_starts_with((string) @file_get_contents("/proc/$parent/cmdline"), 'wsd: master');
    }

    /** What has waited is dropped. */
    public static function drop(): void
    {
        self::end(ob_end_clean(...));
    }

    /** What has waited is shown: nobody else has printed it. */
    public static function show(): void
    {
        self::end(ob_end_flush(...));
    }

    private static function end(\Closure $end): void
    {
        // A script that has begun a buffer of its own and not ended it keeps both.
        if (self::$level > 0 && ob_get_level() === self::$level) {
            $end();
        }
        self::$level = 0;
    }
}
