<?php

namespace Hhxsv5\LaravelS\Swoole\Timer;

/** LaravelS's millisecond job: runs in the first process of the first worker. */
abstract class CronJob
{
    /** @internal */
    public ?int $timer = null;
    /** @internal */
    public bool $stopped = false;

    /** Milliseconds between runs. */
    public function interval()
    {
        return 1000;
    }

    /** Whether the first run is at the start. */
    public function isImmediate()
    {
        return false;
    }

    abstract public function run();

    public function stop()
    {
        $this->stopped = true;
    }
}
