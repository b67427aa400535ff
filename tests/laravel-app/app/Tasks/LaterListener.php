<?php

namespace App\Tasks;

use Hhxsv5\LaravelS\Swoole\Task\Event;
use Hhxsv5\LaravelS\Swoole\Task\Listener;

/** A listener as LaravelS has them since 2022; NewsListener is one of before. */
class LaterListener extends Listener
{
    public function handle(Event $event)
    {
        app('swoole')->push($event->fd, "then heard $event->news");
    }
}
