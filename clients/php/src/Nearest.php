<?php

declare(strict_types=1);

namespace Wsd;

/** The known name that somebody meant who has misspelt it. */
final class Nearest
{
    /** Longer names are not compared. */
    private const NAME_BYTES_MAX = 64;

    /**
     * The nearest of the known names, by letters put in, left out or changed; null where none is near.
     *
     * @param list<string> $known
     */
    public static function of(string $name, array $known): ?string
    {
        $name = strtolower(substr($name, 0, self::NAME_BYTES_MAX));
        [$best, $least] = [null, PHP_INT_MAX];
        foreach ($known as $candidate) {
            $lower = strtolower($candidate);
            $distance = strlen($name) >= 4 && str_starts_with($lower, $name) ? 1 : levenshtein($name, $lower);
            if ($distance < $least && $distance <= 1 + intdiv(min(strlen($name), strlen($lower)), 3)) {
                [$best, $least] = [$candidate, $distance];
            }
        }
        return $best;
    }

    /** What is said of a key that is not known. */
    public static function sentence(string $key, array $known): string
    {
        $near = self::of($key, $known);
        return $near === null ? "$key: there is no such key, and it is ignored"
            : "$key: there is no such key, and it is ignored; did you mean $near?";
    }
}
