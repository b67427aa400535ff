<?php

namespace App\Console;

use Illuminate\Foundation\Console\Kernel as ConsoleKernel;
use Illuminate\Queue\WorkerOptions;

class Kernel extends ConsoleKernel
{
    /** A command that pushes from outside of the server, as a queue worker or cron job would. */
    protected function commands()
    {
        $this->command('say {fd} {text}', function () {
            $pushed = app('swoole')->push((int) $this->argument('fd'), $this->argument('text'));
            $this->line($pushed ? 'pushed' : 'gone');
        });
        $this->command('tell {user} {text}', function () {
            $pushed = app('swoole')->pushUid($this->argument('user'), $this->argument('text'));
            $this->line($pushed ? 'pushed' : 'gone');
        });
        // As `queue:work --once` does it.
        $this->command('work', function () {
            app('queue.worker')->runNextJob('database', 'default', new WorkerOptions(sleep: 0));
        });
    }
}
