<?php

declare(strict_types=1);

namespace Wsd;

/**
 * The process that a user started, where it has something to do while the server runs or after it:
 * events of the server's life, or code behind start(). Else wsd takes the place of that process.
 *
 * Signals for it go on to wsd. Needs ext-pcntl for that; without it Ctrl-C still reaches both.
 */
final class Keeper
{
    /** How often it looks at the server. */
    private const LOOK_US = 100_000;
    private const FORWARDED = ['SIGTERM', 'SIGINT', 'SIGQUIT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2'];
    /** The code of a signal that a process sent; those of a terminal reach wsd by themselves. */
    private const SI_USER = 0;

    private int $generation = 0;
    private bool $reloading = false;

    /**
     * @param \Closure(string, int, int): void $tell an event, the master's pid and the manager's
     * @param bool $looks whether events of reloads are wanted
     * @param Watcher|null $watcher reloads the server when code has changed
     * @param Timers|null $timers those of this process, which callbacks have set
     */
    public function __construct(
        private \Closure $tell,
        private string $runtimeDir,
        private bool $looks,
        private ?Watcher $watcher = null,
        private ?Timers $timers = null,
    ) {
    }

    /**
     * One that does nothing but to reload the server when code has changed.
     *
     * @param list<string> $paths
     */
    public static function watching(string $runtimeDir, array $paths): self
    {
        return new self(static fn () => null, $runtimeDir, false, new Watcher($paths));
    }

    /**
     * Runs wsd, and returns when it has ended.
     *
     * @param list<string> $command
     * @return int its exit code
     */
    public function run(array $command): int
    {
        // It inherits standard input, output and error; given as streams, files would be rewound.
        $process = proc_open($command, [], $pipes);
        if ($process === false) {
            throw new \RuntimeException("$command[0] cannot be run");
        }
        $master = proc_get_status($process)['pid'];
        $this->forward($master);
        do {
            $this->pause();
            $this->looks && $this->look($master);
            $this->watcher?->changed() && $this->reload();
            $status = proc_get_status($process);
        } while ($status['running']);
        foreach (['beforeshutdown', 'managerstop', 'shutdown'] as $event) {
            ($this->tell)($event, $master, 0);
        }
        return $status['exitcode'];
    }

    /** Waits for the next look, and runs timers meanwhile. */
    private function pause(): void
    {
        $until = hrtime(true) + 1000 * self::LOOK_US;
        while (($left = $until - hrtime(true)) > 0) {
            usleep((int) (min($left / 1e9, $this->timers?->wait() ?? INF) * 1e6));
            $this->timers?->run(function (callable $call): void {
                try {
                    $call();
                } catch (\Throwable $error) {
                    file_put_contents('php://stderr', "Uncaught $error\n");
                }
            });
        }
    }

    private function forward(int $master): void
    {
        if (!function_exists('pcntl_signal') || !function_exists('posix_kill')) {
            return;
        }
        pcntl_async_signals(true);
        foreach (array_filter(self::FORWARDED, defined(...)) as $name) {
            pcntl_signal(constant($name), function (int $signal, mixed $info) use ($master): void {
                if (($info['code'] ?? self::SI_USER) <= self::SI_USER) {
                    posix_kill($master, $signal);
                }
            });
        }
    }

    /** Code has changed: what does not load is said, and the old code goes on. */
    private function reload(): void
    {
        try {
            $verdict = (new Control(['runtime_dir' => $this->runtimeDir]))->reload();
        } catch (\RuntimeException $error) {
            fwrite(STDERR, "wsd: watch: {$error->getMessage()}\n");
            return;
        }
        $why = $verdict['error'] ?? $verdict['failure'] ?? 'refused';
        fwrite(STDERR, 'wsd: watch: ' . ($verdict['ok'] ? 'reloaded' : $why) . "\n");
    }

    /** Sees what has become of the server since the last look. */
    private function look(int $master): void
    {
        try {
            $status = (new Control(['runtime_dir' => $this->runtimeDir]))->status();
        } catch (\Throwable) {
            return; // It begins, or ends.
        }
        $generation = (int) ($status['generation'] ?? 0);
        $manager = (int) ($status['manager_pid'] ?? 0);
        $tell = fn (string $event) => ($this->tell)($event, $master, $manager);
        if ($this->generation === 0 && $generation > 0) {
            $tell('managerstart');
        } elseif ($generation > $this->generation) {
            $this->reloading || $tell('beforereload');
            $tell('afterreload');
            $this->reloading = false;
        } elseif (($status['reload']['state'] ?? 'idle') !== 'idle' && !$this->reloading) {
            $this->reloading = true;
            $tell('beforereload');
        }
        $this->generation = max($this->generation, $generation);
    }
}
