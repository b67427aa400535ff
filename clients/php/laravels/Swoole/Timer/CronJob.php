<?php

namespace Hhxsv5\LaravelS\Swoole\Timer;

use Swoole\Timer;

/** LaravelS's millisecond job: runs in the first process of the first worker. */
abstract class CronJob implements CronJobInterface
{
    /** @var int|null */
    protected $timerId;
    /** @var int|null */
    protected $interval;
    /** @var bool|null */
    protected $isImmediate;

    /** One argument, where laravels.timer.jobs has one: a list of interval and isImmediate. */
    public function __construct()
    {
        $config = func_get_args()[0] ?? [];
        if (is_array($config)) {
            $this->interval = $config[0] ?? $this->interval;
            $this->isImmediate = $config[1] ?? $this->isImmediate;
        }
    }

    /** Milliseconds between runs. */
    public function interval()
    {
        return $this->interval;
    }

    /** Whether the first run is at the start. */
    public function isImmediate()
    {
        return $this->isImmediate;
    }

    public function setTimerId($timerId)
    {
        $this->timerId = $timerId;
    }

    public function stop()
    {
        if ($this->timerId !== null) {
            Timer::clear($this->timerId);
        }
    }
}
