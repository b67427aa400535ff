<?php

namespace App\Jobs;

use Hhxsv5\LaravelS\Swoole\Timer\CronJob;

/** A job whose interval stands in config/laravels.php, and that ends itself. */
class SetJob extends CronJob
{
    public function run()
    {
        app('swoole')->wsTable->incr("set job every $this->interval", 'value');
        $this->stop();
    }
}
