<?php

declare(strict_types=1);

namespace Wsd;

/**
 * The processes of a server that run a function of their own, seen from one process: which of them this
 * one is, and what was written to and by them.
 */
final class ServerProcess
{
    /** Messages that wait for read(). */
    private const WAITING_MAX = 65536;
    private const EAGAIN = 11;

    /** @var list<\Swoole\Process> */
    private array $processes = [];
    /** @var array<int, list<string>> messages by the number of the process */
    private array $messages = [];
    /** Which of them this process is. */
    private ?int $self = null;

    public function __construct(private App $app)
    {
    }

    public function add(\Swoole\Process $process): int
    {
        $this->processes[] = $process;
        $number = count($this->processes) - 1;
        $process->belong($this, $number);
        return $number;
    }

    public function count(): int
    {
        return count($this->processes);
    }

    /** The worker has told who this process is: one with a function where its number is behind the others. */
    public function find(): ?int
    {
        $behind = (int) $this->app->fact('process') - (int) $this->app->fact('processes')
            - (int) $this->app->fact('tasks');
        return $this->self = $behind < 0 ? null : $behind;
    }

    /** Runs the function of this process, and after it what it has left to do: timers and events. */
    public function run(): void
    {
        $process = $this->processes[$this->self] ?? null;
        if ($process !== null && function_exists('pcntl_signal')) {
            \Swoole\Process::signal(SIGTERM, fn () => $process->exit());
        }
        $process?->run();
        while (($process === null || $this->app->timers->list() !== []) && $this->app->serve());
    }

    /** A message for the function from any other process; from the function to worker 0. */
    public function write(int $number, string $data): bool
    {
        $bytes = pack('V', 0) . 'p' . pack('V', $number) . $data;
        return $this->self === $number
            ? $this->app->send(0, $bytes, 0, Protocol::AS_NOTE)
            : $this->app->send(
                $number % max(1, (int) $this->app->fact('worker_num')),
                $bytes,
                $number,
                Protocol::TO_USER | Protocol::AS_NOTE,
            );
    }

    /** Waits for a message; below 0 without end. Null where none came, and the process ends where wsd says so. */
    public function read(int $number, float $timeout): ?string
    {
        $until = $timeout < 0 ? INF : microtime(true) + $timeout;
        while (empty($this->messages[$number])) {
            $left = $until - microtime(true);
            if ($left <= 0) {
                SwooleErrors::$last = self::EAGAIN;
                return null;
            }
            $left = is_infinite($left) ? null : $left;
            if ($this->self === null) {
                $this->app->await($left);
            } elseif (!$this->app->serve($left)) {
                exit(0);
            }
        }
        return array_shift($this->messages[$number]);
    }

    /** A message of write() has come. */
    public function written(int $number, string $data): void
    {
        if (count($this->messages[$number] ?? []) >= self::WAITING_MAX) {
            fwrite(STDERR, "wsd: process $number reads nothing: a message to it was dropped\n");
            return;
        }
        $this->messages[$number][] = $data;
    }
}
