<?php

declare(strict_types=1);

namespace Swoole;

use Wsd\Timers;

/** Timers of this process, in milliseconds. */
class Timer
{
    private static ?Timers $timers = null;

    /** @internal the timers of the running application */
    public static function bind(Timers $timers): void
    {
        self::$timers = $timers;
    }

    public static function tick(int $ms, callable $callback, mixed ...$params): int|false
    {
        if ($ms < 1 || self::$timers === null) {
            trigger_error('Swoole\Timer::tick(): Timer must be greater than or equal to 1', E_USER_WARNING);
            return false;
        }
        return self::$timers->add($ms, fn (int $id) => $callback($id, ...$params), true);
    }

    public static function after(int $ms, callable $callback, mixed ...$params): int|false
    {
        if ($ms < 1 || self::$timers === null) {
            trigger_error('Swoole\Timer::after(): Timer must be greater than or equal to 1', E_USER_WARNING);
            return false;
        }
        return self::$timers->add($ms, fn (int $id) => $callback(...$params), false);
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

    public static function list(): \ArrayIterator
    {
        return new \ArrayIterator(self::$timers?->list() ?? []);
    }
}
