<?php

namespace App\Tasks;

use Hhxsv5\LaravelS\Swoole\Task\Task;

/** A task that gives another one. */
class RelayTask extends Task
{
    public function __construct(private int $fd, private string $text)
    {
    }

    public function handle()
    {
        Task::deliver(new ShoutTask($this->fd, $this->text));
    }
}
