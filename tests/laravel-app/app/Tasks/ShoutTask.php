<?php

namespace App\Tasks;

use Hhxsv5\LaravelS\Swoole\Task\Task;

class ShoutTask extends Task
{
    private string $result = '';

    public function __construct(private int $fd, private string $text)
    {
    }

    public function handle()
    {
        $tries = app('swoole')->wsTable->incr('tries', 'value');
        if ($this->text === 'fourth time' && $tries < 4) {
            throw new \RuntimeException("try $tries");
        }
        app('swoole')->push($this->fd, 'in a task process: ' . json_encode(app('swoole')->taskworker));
        $this->result = strtoupper($this->text);
    }

    public function finish()
    {
        app('swoole')->push($this->fd, "finished: $this->result " . json_encode(app('swoole')->taskworker));
    }
}
