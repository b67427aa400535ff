<?php

declare(strict_types=1);

namespace Wsd;

/** The last error of Swoole's names in this process, and what its codes mean. */
final class SwooleErrors
{
    /** @internal */
    public static int $last = 0;

    /** A sentence for a code of the system (below 500) or of Swoole. */
    public static function message(int $code): string
    {
        if ($code < 500) {
            return match (true) {
                function_exists('posix_strerror') => posix_strerror($code),
                function_exists('socket_strerror') => socket_strerror($code),
                default => "Unknown error $code",
            };
        }
        return self::names()[$code] ?? "Unknown error $code";
    }

    /** @return array<int, string> each code's constant in words: SWOOLE_ERROR_QUEUE_FULL is "Queue full" */
    private static function names(): array
    {
        $names = [];
        foreach (get_defined_constants(true)['user'] ?? [] as $name => $value) {
            if (str_starts_with($name, 'SWOOLE_ERROR_')) {
                $names[$value] ??= ucfirst(strtolower(strtr(substr($name, 13), '_', ' ')));
            }
        }
        return $names;
    }
}
