<?php

namespace App\Jobs;

use Hhxsv5\LaravelS\Swoole\Timer\CronJob;

class CountJob extends CronJob
{
    public function interval()
    {
        return 20;
    }

    public function run()
    {
        app('swoole')->wsTable->incr('job of ' . getmypid(), 'value');
    }
}
