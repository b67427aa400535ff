<?php

namespace Hhxsv5\LaravelS\Swoole\Task;

use Swoole\Timer;

/** What LaravelS has done by a task process: a task, or the listeners of an event. */
abstract class BaseTask
{
    /** Seconds until it is given to a task process. */
    protected $delay = 0;
    /** How often it is tried where it throws. */
    protected $tries = 1;

    public function delay($delay)
    {
        if ($delay < 0) {
            throw new \InvalidArgumentException('the delay must be 0 or more seconds');
        }
        $this->delay = $delay;
        return $this;
    }

    public function getDelay()
    {
        return $this->delay;
    }

    public function setTries($tries)
    {
        if ($tries < 1) {
            throw new \InvalidArgumentException('it must be tried at least once');
        }
        $this->tries = (int) $tries;
        return $this;
    }

    public function getTries()
    {
        return $this->tries;
    }

    /** Gives it to a task process, at once or after its delay. */
    protected function task(self $task, $bySendMessage = false)
    {
        $deliver = static function () use ($task, $bySendMessage): bool {
            $swoole = app('swoole');
            if (!$swoole instanceof \Swoole\Server) {
                throw new \LogicException('only a process of the server can give tasks: see docs/laravel.md');
            }
            $workers = (int) $swoole->setting['worker_num'];
            if ($swoole->taskworker) {
                // A task process gives no tasks: a worker does so for it, as in LaravelS.
                return $swoole->sendMessage($task, mt_rand(0, $workers - 1));
            }
            if (!$bySendMessage) {
                return $swoole->task($task) !== false;
            }
            $tasks = (int) $swoole->setting['task_worker_num'];
            $others = array_diff(range(0, $workers + $tasks - 1), [$swoole->worker_id]);
            return $others !== [] && $swoole->sendMessage($task, $others[array_rand($others)]);
        };
        return $task->delay > 0 ? Timer::after((int) ($task->delay * 1000), $deliver) !== false : $deliver();
    }
}
