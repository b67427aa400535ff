<?php

declare(strict_types=1);

use Swoole\Timer;
use Wsd\MediaType;
use Wsd\SwooleErrors;
use Wsd\SwooleSettings;

// Swoole's functions that have a counterpart, but for those that the script brings itself.
// docs/swoole.md names them.

if (!function_exists('swoole_version')) {
    function swoole_version(): string
    {
        return SWOOLE_VERSION;
    }
}

if (!function_exists('swoole_cpu_num')) {
    /** How many processors this process may use. */
    function swoole_cpu_num(): int
    {
        return SwooleSettings::cpus();
    }
}

if (!function_exists('swoole_last_error')) {
    /** The code of the last call of this process that failed, as `$server->getLastError()`. */
    function swoole_last_error(): int
    {
        return SwooleErrors::$last;
    }
}

if (!function_exists('swoole_errno')) {
    /** The system's error of the last call of ext-posix that failed; 0 without that extension. */
    function swoole_errno(): int
    {
        return function_exists('posix_get_last_error') ? posix_get_last_error() : 0;
    }
}

if (!function_exists('swoole_clear_error')) {
    function swoole_clear_error(): void
    {
        SwooleErrors::$last = 0;
    }
}

if (!function_exists('swoole_strerror')) {
    function swoole_strerror(int $errno, int $error_type = SWOOLE_STRERROR_SYSTEM): string
    {
        return SwooleErrors::message($errno);
    }
}

if (!function_exists('swoole_set_process_name')) {
    function swoole_set_process_name(string $process_name): bool
    {
        return function_exists('cli_set_process_title') && @cli_set_process_title($process_name);
    }
}

if (!function_exists('swoole_get_local_ip')) {
    /** @return array<string, string> the first IPv4 address of each interface that is no loopback */
    function swoole_get_local_ip(int $family = 2): array
    {
        $addresses = [];
        foreach (function_exists('net_get_interfaces') ? net_get_interfaces() : [] as $name => $interface) {
            foreach ($interface['unicast'] ?? [] as $unicast) {
                $address = $unicast['address'] ?? '';
                if (($unicast['family'] ?? 0) === $family && !str_starts_with($address, '127.') && $address !== '::1') {
                    $addresses[$name] ??= $address;
                }
            }
        }
        return $addresses;
    }
}

if (!function_exists('swoole_error_log')) {
    function swoole_error_log(int $level, string $msg): void
    {
        fwrite(STDERR, "$msg\n");
    }
}

if (!function_exists('swoole_async_set')) {
    /** Accepted, and without effect: there is no asynchronous I/O to set up. */
    function swoole_async_set(array $settings): bool
    {
        return true;
    }
}

if (!function_exists('swoole_timer_tick')) {
    function swoole_timer_tick(int $ms, callable $callback, mixed ...$params): int|false
    {
        return Timer::tick($ms, $callback, ...$params);
    }
}

if (!function_exists('swoole_timer_after')) {
    function swoole_timer_after(int $ms, callable $callback, mixed ...$params): int|false
    {
        return Timer::after($ms, $callback, ...$params);
    }
}

if (!function_exists('swoole_timer_exists')) {
    function swoole_timer_exists(int $timer_id): bool
    {
        return Timer::exists($timer_id);
    }
}

if (!function_exists('swoole_timer_info')) {
    function swoole_timer_info(int $timer_id): ?array
    {
        return Timer::info($timer_id);
    }
}

if (!function_exists('swoole_timer_stats')) {
    function swoole_timer_stats(): array
    {
        return Timer::stats();
    }
}

if (!function_exists('swoole_timer_list')) {
    function swoole_timer_list(): \Swoole\Timer\Iterator
    {
        return Timer::list();
    }
}

if (!function_exists('swoole_timer_clear')) {
    function swoole_timer_clear(int $timer_id): bool
    {
        return Timer::clear($timer_id);
    }
}

if (!function_exists('swoole_timer_clear_all')) {
    function swoole_timer_clear_all(): bool
    {
        return Timer::clearAll();
    }
}

if (!function_exists('swoole_mime_type_add')) {
    /** False where files that end so have a type. */
    function swoole_mime_type_add(string $suffix, string $mime_type): bool
    {
        return !MediaType::isKnown("a.$suffix") && swoole_mime_type_set($suffix, $mime_type);
    }
}

if (!function_exists('swoole_mime_type_set')) {
    function swoole_mime_type_set(string $suffix, string $mime_type): bool
    {
        MediaType::add($suffix, $mime_type);
        return true;
    }
}

if (!function_exists('swoole_mime_type_get')) {
    function swoole_mime_type_get(string $filename): string
    {
        return MediaType::of($filename);
    }
}

if (!function_exists('swoole_mime_type_exists')) {
    function swoole_mime_type_exists(string $filename): bool
    {
        return MediaType::isKnown($filename);
    }
}
