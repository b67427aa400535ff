<?php

declare(strict_types=1);

namespace Wsd\Laravel;

use Hhxsv5\LaravelS\Swoole\Process\CustomProcessInterface;
use Hhxsv5\LaravelS\Swoole\Task\BaseTask;
use Hhxsv5\LaravelS\Swoole\Task\Event;
use Hhxsv5\LaravelS\Swoole\Task\Listener;
use Hhxsv5\LaravelS\Swoole\Task\Task;
use Swoole\Http\Server as SwooleServer;
use Swoole\Process;

/** LaravelS's tasks, events and custom processes, run in the processes that have them. */
final class Tasks
{
    /** What LaravelS waits after a custom process has ended, in seconds. */
    private const RESTART_SECONDS = 5;

    /** @param \Closure(callable): void $attempt runs something, and reports what it throws */
    public function __construct(private SwooleServer $server, private array $config, private \Closure $attempt)
    {
    }

    /** Does what a task process was given. */
    public function run(mixed $data): mixed
    {
        if ($data instanceof Task) {
            $done = $this->tried($data, fn () => $data->handle());
            return $done && method_exists($data, 'finish') ? $data : null;
        }
        if ($data instanceof Event) {
            foreach ($this->listeners($data) as $class) {
                $listener = new $class($data);
                if (!$listener instanceof Listener) {
                    throw new \InvalidArgumentException("$class is no " . Listener::class);
                }
                $result = null;
                $this->tried($data, function () use ($listener, $data, &$result): void {
                    $result = $listener->handle($data);
                });
                if ($result === false) {
                    break;
                }
            }
        }
        return null;
    }

    /** What came from another process: a worker has a task process do it, where the server has one. */
    public function posted(mixed $data): void
    {
        $has = ($this->server->setting['task_worker_num'] ?? 0) > 0;
        $given = $has && !$this->server->taskworker && $data instanceof BaseTask;
        $given ? $this->server->task($data) : $this->run($data);
    }

    /** A task that has a finish() was done. */
    public function finish(mixed $data): void
    {
        if ($data instanceof Task) {
            ($this->attempt)(fn () => $data->finish());
        }
    }

    /**
     * The classes of laravels.processes, each as often as it is wanted.
     *
     * @return list<array{class: class-string, pause: int, redirect: bool, pipe: int}>
     */
    public static function processes(array $config): array
    {
        $processes = [];
        foreach ((array) ($config['processes'] ?? []) as $name => $wanted) {
            if (!($wanted['enable'] ?? true)) {
                continue;
            }
            $class = $wanted['class'] ?? '';
            if (!is_subclass_of($class, CustomProcessInterface::class)) {
                throw new \RuntimeException("laravels.processes.$name: the class $class is not there, or is no "
                    . CustomProcessInterface::class);
            }
            $one = [
                'class' => $class,
                'pause' => (int) ($wanted['restart_interval'] ?? self::RESTART_SECONDS),
                'redirect' => (bool) ($wanted['redirect'] ?? false),
                'pipe' => (int) ($wanted['pipe'] ?? 0),
            ];
            array_push($processes, ...array_fill(0, max(1, (int) ($wanted['num'] ?? 1)), $one));
        }
        return $processes;
    }

    /** Gives the server its custom processes. */
    public function addProcesses(): void
    {
        foreach (self::processes($this->config) as $one) {
            ['class' => $class, 'pause' => $pause, 'redirect' => $redirect, 'pipe' => $pipe] = $one;
            $this->server->addProcess(new Process(function (Process $process) use ($class, $pause): void {
                if (function_exists('pcntl_signal')) {
                    Process::signal(SIGUSR1, fn () => $class::onReload($this->server, $process));
                    Process::signal(SIGTERM, function () use ($class, $process): void {
                        ($this->attempt)(fn () => $class::onStop($this->server, $process));
                        $process->exit();
                    });
                }
                ($this->attempt)(fn () => $class::callback($this->server, $process));
                sleep($pause);
            }, $redirect, $pipe));
        }
    }

    /** @return list<class-string> those of the event, and those of laravels.events */
    private function listeners(Event $event): array
    {
        return [...(array) $event->getListeners(), ...(array) ($this->config['events'][$event::class] ?? [])];
    }

    /** Whether it was done, in as many tries as it has. */
    private function tried(Task|Event $what, callable $handle): bool
    {
        for ($try = 1; ; $try++) {
            try {
                $handle();
                return true;
            } catch (\Throwable $error) {
                ($this->attempt)(fn () => throw $error);
                if ($try >= $what->getTries()) {
                    return false;
                }
            }
        }
    }
}
