<?php

declare(strict_types=1);

namespace Wsd\Shared;

/**
 * A directory of this user alone with files that several processes share.
 *
 * Every process holds a shared lock on the file `lock` for as long as it lives, so that who can
 * have that lock alone knows that nobody uses the directory.
 */
final class Place
{
    private const LOCK = 'lock';
    private const TRIES_MAX = 100;
    private const NAMES_MAX = 16;

    /** @var array<string, self> those of this process */
    private static array $places = [];
    /** @var resource */
    private $lock;

    private function __construct(public readonly string $path, private int $pid)
    {
    }

    /** The place of this process alone, for what is made before the server runs, or without one. */
    public static function own(): self
    {
        $pid = getmypid();
        foreach (self::$places as $place) {
            if ($place->pid === $pid) {
                return $place;
            }
        }
        $place = self::enter('own-' . $pid . '-' . bin2hex(random_bytes(6)), $pid);
        register_shutdown_function(fn () => getmypid() === $pid && $place->leave());
        return $place;
    }

    /** The place of every process of a server, which the master's pid and start time name. */
    public static function ofServer(int $master): self
    {
        return self::enter("server-$master-" . self::started($master), 0);
    }

    /** When a process was started, '0' where that cannot be told. */
    private static function started(int $pid): string
    {
        $stat = (string) @file_get_contents("/proc/$pid/stat");
        // The name in parentheses may have spaces; starttime is field 22 (proc(5)).
        return explode(' ', substr($stat, (int) strrpos($stat, ')') + 2))[19] ?? '0';
    }

    /** Gives up the place of this process, whose program is about to be replaced. */
    public static function leaveOwn(): void
    {
        foreach (self::$places as $place) {
            $place->pid === getmypid() && $place->leave();
        }
    }

    /** Ends the use of the place, and removes the place where nobody else uses it. */
    public function leave(): void
    {
        unset(self::$places[$this->path]);
        if (is_resource($this->lock)) {
            self::remove($this->path, $this->lock);
            fclose($this->lock);
        }
    }

    /** The directory that holds the places of this user. */
    private static function root(): string
    {
        $named = getenv('WSD_SHARED_DIR') ?: null;
        $base = is_dir('/dev/shm') && is_writable('/dev/shm') ? '/dev/shm' : sys_get_temp_dir();
        $usual = "$base/wsd-" . self::me();
        // Another user can have taken any one name, and every process has to come to the same.
        $names = array_map(fn (int $number) => "$usual-$number", range(2, self::NAMES_MAX));
        foreach ($named === null ? [$usual, ...$names] : [$named] as $root) {
            @mkdir($root, 0700);
            clearstatcache();
            $stat = @lstat($root);
            $mine = $stat !== false && ($stat['mode'] & 0170000) === 0040000 && $stat['uid'] === self::me();
            if ($mine && ($stat['mode'] & 0022) === 0) {
                return $root;
            }
            $why ??= "$root " . ($stat === false
                ? 'cannot be made' : 'is no directory of this user that nobody else can write to');
        }
        throw new \RuntimeException("$why: tables, atomics and locks need one; "
            . 'remove it, or name another directory in WSD_SHARED_DIR');
    }

    private static function enter(string $name, int $pid): self
    {
        $root = self::root();
        $path = "$root/$name";
        if (isset(self::$places[$path])) {
            return self::$places[$path];
        }
        $place = new self($path, $pid);
        for ($try = 0; $try < self::TRIES_MAX; $try++) {
            if (@mkdir($path, 0700)) {
                self::sweep($root);
            }
            $lock = @fopen("$path/" . self::LOCK, 'c+e');
            // Whoever left last may have removed it since.
            if ($lock !== false && flock($lock, LOCK_SH) && self::isNamed($lock, "$path/" . self::LOCK)) {
                $place->lock = $lock;
                return self::$places[$path] = $place;
            }
        }
        throw new \RuntimeException("$path/" . self::LOCK . ' cannot be opened');
    }

    /** Removes what servers and scripts that were killed have left. */
    private static function sweep(string $root): void
    {
        $places = [...glob("$root/own-*", GLOB_ONLYDIR) ?: [], ...glob("$root/server-*", GLOB_ONLYDIR) ?: []];
        foreach ($places as $path) {
            [$kind, $pid, $start] = explode('-', basename($path)) + ['', '0', ''];
            // One that is just being made has no lock yet, and all processes of a server may have died
            // with the next ones on their way.
            $runs = is_dir("/proc/$pid") && ($kind !== 'server' || self::started((int) $pid) === $start);
            $lock = $runs ? false : @fopen("$path/" . self::LOCK, 'c+e');
            if ($lock !== false) {
                self::remove($path, $lock);
                fclose($lock);
            }
        }
    }

    /** @param resource $lock */
    private static function remove(string $path, $lock): void
    {
        if (!flock($lock, LOCK_EX | LOCK_NB)) {
            return;
        }
        foreach (glob("$path/*") ?: [] as $file) {
            $file !== "$path/" . self::LOCK && @unlink($file);
        }
        @unlink("$path/" . self::LOCK);
        @rmdir($path);
    }

    /** @param resource $file */
    private static function isNamed($file, string $path): bool
    {
        clearstatcache();
        $stat = @stat($path);
        return $stat !== false && $stat['ino'] === fstat($file)['ino'];
    }

    private static function me(): int
    {
        return \Wsd\RuntimeDir::me();
    }
}
