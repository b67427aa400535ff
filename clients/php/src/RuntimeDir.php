<?php

declare(strict_types=1);

namespace Wsd;

/**
 * The directory with a server's control socket: where it is, and whether it may be believed.
 *
 * Whoever could put a directory of their own there would read every push. So the directory, the
 * lock and the socket belong to one user, who is this one, or root, or for root anybody whose
 * directory only root can have made where it is; and a link counts only where root or this user
 * has made it.
 */
final class RuntimeDir
{
    public const SOCKET = 'wsd.sock';
    private const LOCK = 'wsd.lock';
    private const LINKS_MAX = 40;
    /** Longer ones leave no room for the socket in the 107 bytes of its address. */
    private const NAME_BYTES_MAX = 60;
    /** SO_PEERCRED of Linux; its first number is the peer's process. */
    private const PEERCRED = 17;

    /** Where the server is, or will be, that listens on this address, such as 127.0.0.1:9501. */
    public static function of(string $listen): string
    {
        $places = self::places($listen);
        foreach ($places as $place) {
            if (@lstat("$place/" . self::SOCKET) !== false && self::isBelieved($place)) {
                return $place;
            }
        }
        foreach ($places as $place) {
            if (@lstat($place) === false || self::isBelieved($place)) {
                return $place;
            }
        }
        return $places[0];
    }

    private static function isBelieved(string $directory): bool
    {
        try {
            self::check($directory);
            return true;
        } catch (\RuntimeException) {
            return false;
        }
    }

    /**
     * The directory without any link in its way.
     *
     * @throws \RuntimeException where somebody else may have put it there
     */
    public static function check(string $directory): string
    {
        clearstatcache();
        [$path, $onlyRoots] = self::walk($directory);
        $stat = @lstat($path);
        if ($stat === false) {
            throw new \RuntimeException("wsd does not run: there is no $path");
        }
        [$me, $owner] = [self::me(), $stat['uid']];
        if ($owner !== $me && $owner !== 0 && !($me === 0 && $onlyRoots)) {
            throw new \RuntimeException("$path belongs to uid $owner, who is neither you nor root, "
                . 'so no server there is asked; name the right runtime_dir');
        }
        if (($stat['mode'] & 0170000) !== 0040000 || ($stat['mode'] & 0022) !== 0) {
            throw new \RuntimeException("$path is no directory, or others can write to it: chmod go-w it");
        }
        foreach ([self::LOCK => 0100000, self::SOCKET => 0140000] as $name => $kind) {
            $entry = @lstat("$path/$name");
            if ($entry !== false && ($entry['uid'] !== $owner || ($entry['mode'] & 0170000) !== $kind)) {
                throw new \RuntimeException("$path/$name is not what the server of $path makes: not asked");
            }
        }
        return $path;
    }

    /**
     * Makes sure that the owner of the directory, or root, listens at the other end. Without the
     * sockets extension the owner of the socket has to do.
     *
     * @param resource $stream
     */
    public static function checkPeer($stream, string $path): void
    {
        if (!function_exists('socket_import_stream') || ($socket = @socket_import_stream($stream)) === false) {
            return;
        }
        $pid = @socket_get_option($socket, SOL_SOCKET, self::PEERCRED);
        $status = is_int($pid) && $pid > 0 ? @file_get_contents("/proc/$pid/status") : false;
        if ($status === false || !preg_match('/^Uid:\s+(\d+)/m', $status, $found)) {
            return;
        }
        $owner = @lstat($path)['uid'] ?? -1;
        if ((int) $found[1] !== $owner && (int) $found[1] !== 0) {
            throw new \RuntimeException("uid $found[1] listens on $path/" . self::SOCKET
                . ", which belongs to uid $owner: not asked");
        }
    }

    /** The effective user. */
    public static function me(): int
    {
        return function_exists('posix_geteuid') ? posix_geteuid() : (int) @stat('/proc/self')['uid'];
    }

    /** @return list<string> the first is where a server of this user begins */
    private static function places(string $listen): array
    {
        $name = trim((string) preg_replace('/[^0-9A-Za-z.]+/', '-', $listen), '-');
        $name = strlen($name) > self::NAME_BYTES_MAX ? substr(sha1($listen), 0, 16) : $name;
        $me = self::me();
        $roots = "/run/wsd-$name";
        if ($me === 0) {
            return [$roots];
        }
        $named = getenv('XDG_RUNTIME_DIR') ?: null;
        // A cron job of the same user has no such variable, and the server may have had it.
        $sessions = is_dir("/run/user/$me") ? "/run/user/$me" : null;
        $users = array_unique(array_filter([$named, $sessions]));
        $users = array_map(fn (string $directory) => "$directory/wsd-$name", array_values($users));
        $temporary = "/tmp/wsd-$me-$name";
        return $named === null ? [$temporary, ...$users, $roots] : [...$users, $temporary, $roots];
    }

    /**
     * Goes the way step by step, as the kernel would.
     *
     * @return array{0: string, 1: bool} the path without links, and whether only root could have
     *     made what stands there
     */
    private static function walk(string $path): array
    {
        $me = self::me();
        $rest = self::names(str_starts_with($path, '/') ? $path : getcwd() . "/$path");
        [$here, $onlyRoots, $links] = ['', true, 0];
        while ($rest !== []) {
            $parent = @lstat($here === '' ? '/' : $here);
            $onlyRoots = $onlyRoots && $parent !== false && $parent['uid'] === 0 && ($parent['mode'] & 0022) === 0;
            $name = array_shift($rest);
            if ($name === '..') {
                $here = $here === '' ? '' : rtrim(dirname($here), '/');
                continue;
            }
            $stat = @lstat("$here/$name");
            if ($stat === false || ($stat['mode'] & 0170000) !== 0120000) {
                $here = "$here/$name";
                continue;
            }
            if ($stat['uid'] !== 0 && $stat['uid'] !== $me) {
                throw new \RuntimeException("$here/$name is a link that uid {$stat['uid']} has made, which is "
                    . 'not followed; name the directory itself');
            }
            if (++$links > self::LINKS_MAX) {
                throw new \RuntimeException("$path: too many links");
            }
            $target = (string) readlink("$here/$name");
            $here = str_starts_with($target, '/') ? '' : $here;
            $rest = [...self::names($target), ...$rest];
        }
        return [$here, $onlyRoots];
    }

    /** @return list<string> */
    private static function names(string $path): array
    {
        return array_values(array_filter(explode('/', $path), fn (string $name) => $name !== '' && $name !== '.'));
    }
}
