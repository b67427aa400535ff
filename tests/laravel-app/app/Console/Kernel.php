<?php

namespace App\Console;

use Illuminate\Foundation\Console\Kernel as ConsoleKernel;

class Kernel extends ConsoleKernel
{
    /** A command that pushes from outside of the server, as a queue worker or cron job would. */
    protected function commands()
    {
        $this->command('say {fd} {text}', function () {
            $pushed = app('swoole')->push((int) $this->argument('fd'), $this->argument('text'));
            $this->line($pushed ? 'pushed' : 'gone');
        });
    }
}
