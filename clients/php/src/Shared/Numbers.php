<?php

declare(strict_types=1);

namespace Wsd\Shared;

/** Whole numbers of 64 bits that begin anew at the other end, as C's do, and as PHP's do not. */
final class Numbers
{
    public static function add(int $a, int $b): int
    {
        $sum = $a + $b;
        if (is_int($sum)) {
            return $sum;
        }
        $low = ($a & 0xffffffff) + ($b & 0xffffffff);
        return ((($a >> 32) + ($b >> 32) + ($low >> 32)) << 32) | ($low & 0xffffffff);
    }
}
