<?php

declare(strict_types=1);

namespace Swoole;

use Wsd\Shared\File;

/**
 * A lock that all processes of a server share; the kernel ends it when its holder dies. Made before
 * the server runs, as Table. Has the methods of Swoole 6 and those of before.
 */
class Lock
{
    use \Wsd\Missing;

    public const FILELOCK = 2;
    public const MUTEX = SWOOLE_MUTEX;
    public const SEM = 4;
    public const RWLOCK = SWOOLE_RWLOCK;
    public const SPINLOCK = SWOOLE_SPINLOCK;
    /** How long it sleeps between two looks while it waits with a time-out, in microseconds. */
    private const NAP_MIN_US = 20;
    private const NAP_MAX_US = 1000;
    /** Errors of errno(3). */
    private const EPERM = 1;
    private const EBUSY = 16;
    private const EDEADLK = 35;
    private const ETIMEDOUT = 110;

    public $errCode = 0;

    private File $file;
    private int $holder = 0;

    /** @param string $filename of a FILELOCK, which Swoole had before version 6; without effect */
    public function __construct(int $type = self::MUTEX, string $filename = '')
    {
        $types = [self::FILELOCK, self::MUTEX, self::SEM, self::RWLOCK, self::SPINLOCK];
        if (!in_array($type, $types, true)) {
            throw new Exception("lock type[$type] is not support");
        }
        $this->file = File::make('lock', 0, (string) $type);
    }

    /**
     * Waits for the lock.
     *
     * @param int $operation LOCK_EX or LOCK_SH, with LOCK_NB for one try
     * @param float $timeout in seconds; below 0 without end
     * @return bool false with `errCode`: EBUSY, ETIMEDOUT, or EDEADLK where this process has it already
     */
    public function lock(int $operation = LOCK_EX, float $timeout = -1): bool
    {
        if ($this->holder === getmypid()) {
            return $this->heldBySelf($operation, $timeout);
        }
        $how = $operation & LOCK_SH ? LOCK_SH : LOCK_EX;
        $got = ($operation & LOCK_NB) || $timeout >= 0 ? $this->until($how, $operation & LOCK_NB ? 0 : $timeout)
            : $this->file->lock($how);
        if (!$got) {
            return $this->failed($operation & LOCK_NB ? self::EBUSY : self::ETIMEDOUT);
        }
        [$this->holder, $this->errCode] = [getmypid(), 0];
        return true;
    }

    public function unlock(): bool
    {
        if ($this->holder !== getmypid()) {
            return $this->failed(self::EPERM);
        }
        $this->holder = 0;
        $this->file->unlock();
        return true;
    }

    public function trylock(): bool
    {
        return $this->lock(LOCK_EX | LOCK_NB);
    }

    public function lock_read(): bool
    {
        return $this->lock(LOCK_SH);
    }

    public function trylock_read(): bool
    {
        return $this->lock(LOCK_SH | LOCK_NB);
    }

    public function lockwait(float $timeout = 1.0): bool
    {
        return $this->lock(LOCK_EX, $timeout);
    }

    public function destroy(): void
    {
        $this->holder === getmypid() && $this->unlock();
    }

    /** What waits for itself waits as long as it would for another, and where that has no end, not at all. */
    private function heldBySelf(int $operation, float $timeout): bool
    {
        if ($operation & LOCK_NB) {
            return $this->failed(self::EBUSY);
        }
        if ($timeout < 0) {
            return $this->failed(self::EDEADLK);
        }
        usleep((int) ($timeout * 1e6));
        return $this->failed(self::ETIMEDOUT);
    }

    private function until(int $how, float $timeout): bool
    {
        $until = microtime(true) + $timeout;
        for ($nap = self::NAP_MIN_US; !$this->file->lock($how | LOCK_NB); $nap = min(2 * $nap, self::NAP_MAX_US)) {
            $left = ($until - microtime(true)) * 1e6;
            if ($left <= 0) {
                return false;
            }
            usleep((int) min($nap, $left + 1));
        }
        return true;
    }

    private function failed(int $code): bool
    {
        $this->errCode = $code;
        return false;
    }
}
