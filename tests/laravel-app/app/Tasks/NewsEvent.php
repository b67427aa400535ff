<?php

namespace App\Tasks;

use Hhxsv5\LaravelS\Swoole\Task\Event;

class NewsEvent extends Event
{
    protected $listeners = [NewsListener::class, LaterListener::class];

    public function __construct(public int $fd, public string $news)
    {
    }
}
