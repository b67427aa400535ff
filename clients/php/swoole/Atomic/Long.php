<?php

declare(strict_types=1);

namespace Swoole\Atomic;

use Wsd\Shared\Cell;
use Wsd\Shared\Numbers;

/** A number of 64 bits with sign that all processes of a server share. Made before the server runs, as Table. */
class Long
{
    use \Wsd\Missing;

    private Cell $cell;

    public function __construct(int $value = 0)
    {
        $this->cell = new Cell('long', $value);
    }

    public function add(int $add_value = 1): int
    {
        return $this->cell->change(fn (int $value): int => Numbers::add($value, $add_value));
    }

    public function sub(int $sub_value = 1): int
    {
        // The two's complement, which PHP_INT_MIN has as well.
        return $this->cell->change(fn (int $value): int => Numbers::add(Numbers::add($value, ~$sub_value), 1));
    }

    public function get(): int
    {
        return $this->cell->get();
    }

    public function set(int $value): void
    {
        $this->cell->change(fn (): int => $value);
    }

    public function cmpset(int $cmp_value, int $new_value): bool
    {
        return $this->cell->compare($cmp_value, $new_value);
    }
}
