<?php

namespace Hhxsv5\LaravelS\Swoole\Timer;

interface CronJobInterface
{
    /** Milliseconds between runs. */
    public function interval();

    /** Whether the first run is at the start. */
    public function isImmediate();

    public function run();

    public function stop();
}
