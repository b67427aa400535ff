<?php

declare(strict_types=1);

namespace Swoole\Server;

/** A task as onTask gets it with task_use_object, task_object or task_enable_coroutine. */
final class Task
{
    public $data;
    public $dispatch_time = 0;
    public $id = -1;
    public $worker_id = -1;
    public $flags = 0;
    private ?\Closure $finish = null;

    /**
     * @internal
     * @param \Closure(mixed): bool $finish takes the result
     */
    public static function of(int $id, int $from, mixed $data, \Closure $finish): self
    {
        $task = new self();
        [$task->id, $task->worker_id, $task->data, $task->finish] = [$id, $from, $data, $finish];
        $task->dispatch_time = microtime(true);
        return $task;
    }

    /** Gives the result to onFinish of the process that asked. */
    public function finish(mixed $data): bool
    {
        return $this->finish !== null && ($this->finish)($data);
    }

    /** Data as bytes, for unpack(). */
    public static function pack(mixed $data): string|false
    {
        return serialize($data);
    }

    public static function unpack(string $data): mixed
    {
        return unserialize($data);
    }

    public function __debugInfo(): array
    {
        return array_diff_key(get_object_vars($this), ['finish' => 1]);
    }
}
