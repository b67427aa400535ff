<?php

use Illuminate\Support\Facades\Artisan;

// A command that pushes from outside of the server, as a queue worker or cron job would.
Artisan::command('say {fd} {text}', function () {
    $pushed = app('swoole')->push((int) $this->argument('fd'), $this->argument('text'));
    $this->line($pushed ? 'pushed' : 'gone');
});
