<?php

namespace App\Tasks;

use Hhxsv5\LaravelS\Swoole\Task\Listener;

class NewsListener extends Listener
{
    public function handle()
    {
        app('swoole')->push($this->event->fd, "heard {$this->event->news}");
    }
}
