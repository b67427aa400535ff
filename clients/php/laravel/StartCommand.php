<?php

declare(strict_types=1);

namespace Wsd\Laravel;

use Illuminate\Console\Command as IlluminateCommand;
use Wsd\Launcher;

/** `artisan wsd:start`: what `bin/laravels start` does. */
class StartCommand extends IlluminateCommand
{
    protected $signature = 'wsd:start {--d|daemonize : In the background} {--watch : Reload when code changes}';
    protected $description = 'Serve the application by wsd';

    public function handle()
    {
        $script = base_path('bin/laravels');
        if (!is_file($script)) {
            $this->error('there is no bin/laravels: php artisan laravels publish');
            return 1;
        }
        $words = [$script, 'start'];
        $this->option('daemonize') && $words[] = '-d';
        $this->option('watch') && $words[] = '--watch';
        return Launcher::php($words);
    }
}
