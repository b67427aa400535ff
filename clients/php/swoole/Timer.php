<?php

declare(strict_types=1);

namespace Swoole;

use Wsd\Timers;

/** Timers of this process, in milliseconds. */
class Timer
{
    use \Wsd\Missing;

    private static ?Timers $timers = null;

    /** @internal the timers of the running application */
    public static function bind(Timers $timers): void
    {
        self::$timers = $timers;
    }

    public static function tick(int $ms, callable $callback, mixed ...$params): int|false
    {
        return self::add('tick', $ms, fn (int $id) => $callback($id, ...$params), true);
    }

    public static function after(int $ms, callable $callback, mixed ...$params): int|false
    {
        return self::add('after', $ms, fn () => $callback(...$params), false);
    }

    public static function clear(int $id): bool
    {
        return self::$timers?->clear($id) ?? false;
    }

    public static function clearAll(): bool
    {
        foreach (self::$timers?->list() ?? [] as $id) {
            self::$timers->clear($id);
        }
        return true;
    }

    public static function exists(int $id): bool
    {
        return self::$timers?->exists($id) ?? false;
    }

    public static function list(): Timer\Iterator
    {
        return new Timer\Iterator(self::$timers?->list() ?? []);
    }

    /** @return array<string, mixed>|null when it runs next (ms since the first timer) and how often it ran */
    public static function info(int $id): ?array
    {
        return self::$timers?->info($id);
    }

    /** @return array{initialized: bool, num: int, round: int} */
    public static function stats(): array
    {
        return self::$timers?->stats() ?? ['initialized' => false, 'num' => 0, 'round' => 0];
    }

    /** Settings of the timer are accepted, and without effect. */
    public static function set(array $settings): bool
    {
        return true;
    }

    private static function add(string $method, int $ms, callable $call, bool $repeat): int|false
    {
        if ($ms < 1) {
            trigger_error("Swoole\\Timer::$method(): Timer must be greater than or equal to 1", E_USER_WARNING);
            return false;
        }
        if (self::$timers === null) {
            trigger_error("Swoole\\Timer::$method(): there is no server yet whose process could run it: "
                . 'see docs/swoole.md', E_USER_WARNING);
            return false;
        }
        return self::$timers->add($ms, $call, $repeat);
    }
}
