<?php

declare(strict_types=1);

namespace Swoole;

use Wsd\Shared\Cell;

/** A number of 32 bits without sign that all processes of a server share. Made before the server runs, as Table. */
class Atomic
{
    use \Wsd\Missing;

    private const BITS = 0xffffffff;
    /** How long wait() sleeps between two looks, in microseconds. */
    private const NAP_MIN_US = 20;
    private const NAP_MAX_US = 1000;

    private Cell $cell;

    public function __construct(int $value = 0)
    {
        $this->cell = new Cell('atomic', $value & self::BITS);
    }

    public function add(int $add_value = 1): int
    {
        return $this->cell->change(fn (int $value): int => ($value + ($add_value & self::BITS)) & self::BITS);
    }

    public function sub(int $sub_value = 1): int
    {
        return $this->cell->change(fn (int $value): int => ($value - ($sub_value & self::BITS)) & self::BITS);
    }

    public function get(): int
    {
        return $this->cell->get();
    }

    public function set(int $value): void
    {
        $this->cell->change(fn (): int => $value & self::BITS);
    }

    public function cmpset(int $cmp_value, int $new_value): bool
    {
        return $this->cell->compare($cmp_value & self::BITS, $new_value & self::BITS);
    }

    /**
     * Takes 1 to 0, or waits until wakeup() lets it do so; 0 or less waits without end. False after so
     * many seconds, and where another process was faster.
     */
    public function wait(float $timeout = 1.0): bool
    {
        if ($this->cell->compare(1, 0)) {
            return true;
        }
        $this->cell->changeAll(fn (int $value, int $waiting, int $woken): array => [$value, $waiting + 1, $woken]);
        $until = $timeout > 0 ? microtime(true) + $timeout : INF;
        for ($nap = self::NAP_MIN_US; ($taken = $this->isWoken($until)) === null;) {
            usleep($nap);
            $nap = min(2 * $nap, self::NAP_MAX_US);
        }
        return $taken;
    }

    /** Makes 1 of 0, and lets so many go on that wait. */
    public function wakeup(int $count = 1): bool
    {
        $this->cell->changeAll(fn (int $value, int $waiting, int $woken): array => $value === 0
            ? [1, $waiting, min($waiting, $woken + max(0, $count))]
            : [$value, $waiting, $woken]);
        return true;
    }

    /** Whether a process that waits has taken 1 to 0; null where it waits on. */
    private function isWoken(float $until): ?bool
    {
        $taken = null;
        $this->cell->changeAll(function (int $value, int $waiting, int $woken) use ($until, &$taken): array {
            if ($woken > 0) {
                $taken = $value === 1;
                return [$taken ? 0 : $value, $waiting - 1, $woken - 1];
            }
            $taken = microtime(true) >= $until ? false : null;
            return [$value, $taken === null ? $waiting : $waiting - 1, $woken];
        });
        return $taken;
    }
}
