<?php

namespace Hhxsv5\LaravelS\Swoole\Process;

use Swoole\Http\Server;
use Swoole\Process;

/** LaravelS's custom process: callback() runs in a process of its own, and again after it has returned. */
interface CustomProcessInterface
{
    public static function callback(Server $swoole, Process $process);

    /** At a signal USR1; a reload ends the process by TERM, as a stop does. */
    public static function onReload(Server $swoole, Process $process);

    /** At the signal TERM, which ends the process after that. Needs ext-pcntl. */
    public static function onStop(Server $swoole, Process $process);
}
