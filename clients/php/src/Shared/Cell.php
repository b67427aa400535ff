<?php

declare(strict_types=1);

namespace Wsd\Shared;

/** A whole number that all processes of a server share. */
final class Cell
{
    private File $file;

    public function __construct(string $kind, int $value)
    {
        $this->file = File::make($kind, 24);
        $value !== 0 && $this->change(fn () => $value);
    }

    public function get(): int
    {
        $this->file->lock(LOCK_SH);
        $value = unpack('q', $this->file->read(0, 8))[1];
        $this->file->unlock();
        return $value;
    }

    /**
     * Changes the number under the lock.
     *
     * @param callable(int): int $change
     */
    public function change(callable $change): int
    {
        $this->file->lock(LOCK_EX);
        try {
            $value = $change(unpack('q', $this->file->read(0, 8))[1]);
            $this->file->write(0, pack('q', $value));
        } finally {
            $this->file->unlock();
        }
        return $value;
    }

    /**
     * Changes the number, how many processes wait, and how many of them may go on, under the lock.
     *
     * @param callable(int, int, int): array{0: int, 1: int, 2: int} $change
     */
    public function changeAll(callable $change): void
    {
        $this->file->lock(LOCK_EX);
        try {
            $all = $change(...array_values(unpack('q3', $this->file->read(0, 24))));
            $this->file->write(0, pack('q3', ...$all));
        } finally {
            $this->file->unlock();
        }
    }

    /** Sets $new where the number is $old. */
    public function compare(int $old, int $new): bool
    {
        $same = false;
        $this->change(function (int $value) use ($old, $new, &$same): int {
            $same = $value === $old;
            return $same ? $new : $value;
        });
        return $same;
    }
}
