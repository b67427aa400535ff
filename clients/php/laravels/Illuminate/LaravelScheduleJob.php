<?php

namespace Hhxsv5\LaravelS\Illuminate;

use Hhxsv5\LaravelS\Swoole\Timer\CronJob;

/** LaravelS's job in the place of cron: `php artisan schedule:run` each minute, beside this process. */
class LaravelScheduleJob extends CronJob
{
    /** What tells a process of the server that it is one, which the command is not. */
    private const OF_THE_SERVER = ['WSD_APP_FD', 'WSD_APP_PLACE', 'APP_RUNNING_IN_CONSOLE'];

    public function interval()
    {
        return 60 * 1000;
    }

    public function isImmediate()
    {
        return false;
    }

    public function run()
    {
        $words = ['env'];
        foreach (self::OF_THE_SERVER as $name) {
            array_push($words, '-u', $name);
        }
        array_push($words, PHP_BINARY, base_path('artisan'), 'schedule:run');
        exec(implode(' ', array_map('escapeshellarg', $words)) . ' > /dev/null 2>&1 &');
    }
}
