<?php

declare(strict_types=1);

namespace Wsd;

/** Finds the wsd program and starts it with this script as its application. */
final class Launcher
{
    /** The program: WSD_BIN, else `wsd` on PATH. */
    public static function binary(): string
    {
        $named = getenv('WSD_BIN');
        if ($named !== false && $named !== '') {
            if (!is_executable($named)) {
                throw new \RuntimeException("WSD_BIN names no program: $named");
            }
            return $named;
        }
        foreach (explode(PATH_SEPARATOR, (string) getenv('PATH')) as $directory) {
            if ($directory !== '' && is_file("$directory/wsd") && is_executable("$directory/wsd")) {
                return "$directory/wsd";
            }
        }
        throw new \RuntimeException('wsd is not on PATH; install it, or name it in WSD_BIN');
    }

    /** @return list<string> the command line of this process, with which wsd starts others */
    public static function command(): array
    {
        $line = @file_get_contents('/proc/self/cmdline');
        if ($line === false || $line === '') {
            return [PHP_BINARY, ...$_SERVER['argv']];
        }
        $words = explode("\0", rtrim($line, "\0"));
        $words[0] = PHP_BINARY;
        array_splice($words, 1, 0, self::opcache($words));
        return $words;
    }

    /**
     * A server runs for weeks, so it has opcache as PHP-FPM has. php.ini leaves it off on the
     * command line; `php -d opcache.enable_cli=0 server.php` leaves it off here.
     *
     * @param list<string> $words
     * @return list<string>
     */
    private static function opcache(array $words): array
    {
        $said = preg_grep('/opcache\.enable_cli/', $words) !== [];
        $wanted = extension_loaded('Zend OPcache') && filter_var(ini_get('opcache.enable'), FILTER_VALIDATE_BOOL);
        return $said || !$wanted ? [] : ['-d', 'opcache.enable_cli=1'];
    }

    /**
     * Runs `wsd start` in the place of this process.
     *
     * With pcntl, which most builds of PHP for the command line have, wsd replaces this process
     * and keeps its pid. Without, wsd runs below it: Ctrl-C reaches both, and a signal for the
     * server must be sent to the master (`wsd stop`).
     *
     * @param array<string, scalar|list<string>> $settings keys of wsd's configuration
     * @param Keeper|null $keeper where this process has something to do besides
     * @return int the exit code, where this process was not replaced
     */
    public static function start(array $settings, ?Keeper $keeper = null): int
    {
        // For this user alone: wsd itself lets the group look into a directory that it makes.
        @mkdir((string) ($settings['runtime_dir'] ?? ''), 0700);
        $arguments = ['start'];
        foreach ($settings as $key => $value) {
            $arguments[] = '--set';
            $arguments[] = "$key=" . self::value($value);
        }
        if ($keeper !== null) {
            Shared\Place::leaveOwn();
            return $keeper->run([self::binary(), ...$arguments]);
        }
        try {
            return self::run($arguments, true);
        } catch (\RuntimeException $wrong) {
            // For whoever starts a server, who needs no trace.
            fwrite(STDERR, "wsd: {$wrong->getMessage()}\n");
            return 1;
        }
    }

    /** Runs PHP with a script and its words in the place of this process. */
    public static function php(array $words): int
    {
        return self::replace(PHP_BINARY, $words);
    }

    /** Runs wsd with these arguments; with $replace in the place of this process. */
    public static function run(array $arguments, bool $replace = false): int
    {
        return self::replace(self::binary(), $arguments, $replace);
    }

    private static function replace(string $binary, array $arguments, bool $replace = true): int
    {
        flush();
        Shared\Place::leaveOwn();
        if ($replace && function_exists('pcntl_exec')) {
            pcntl_exec($binary, $arguments);
            throw new \RuntimeException("$binary cannot be run");
        }
        $process = proc_open([$binary, ...$arguments], [], $pipes);
        if ($process === false) {
            throw new \RuntimeException("$binary cannot be run");
        }
        return proc_close($process);
    }

    private static function value(string|int|float|bool|array $value): string
    {
        return match (true) {
            is_bool($value) => $value ? 'true' : 'false',
            // A JSON list of strings is a TOML list as well.
            is_array($value) => json_encode(array_values($value), JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE),
            default => (string) $value,
        };
    }
}
