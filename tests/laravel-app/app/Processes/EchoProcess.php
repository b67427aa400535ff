<?php

namespace App\Processes;

use Hhxsv5\LaravelS\Swoole\Process\CustomProcessInterface;
use Swoole\Http\Server;
use Swoole\Process;

class EchoProcess implements CustomProcessInterface
{
    public static function callback(Server $swoole, Process $process)
    {
        $swoole->wsTable->incr('processes', 'value');
        while (true) {
            $swoole->wsTable->incr('beats', 'value');
            usleep(20_000);
        }
    }

    public static function onReload(Server $swoole, Process $process)
    {
    }

    public static function onStop(Server $swoole, Process $process)
    {
        $swoole->wsTable->incr('stopped', 'value');
    }
}
