<?php

declare(strict_types=1);

namespace Wsd\Laravel;

use Illuminate\Console\Command as IlluminateCommand;

class Command extends IlluminateCommand
{
    protected $signature = 'laravels {action=info : publish, config or info} {--force : Overwrite config/laravels.php}';
    protected $description = 'Publish or show the configuration of the wsd server';

    public function handle()
    {
        switch ($this->argument('action')) {
            case 'publish':
                return $this->publish();
            case 'config':
                $settings = Settings::swoole(Settings::of($this->laravel));
                $this->line(json_encode($settings->wsd, JSON_PRETTY_PRINT | JSON_UNESCAPED_SLASHES));
                return 0;
            case 'info':
                foreach (Cli::versions($this->laravel->version()) as $name => $version) {
                    $this->line(sprintf('%-12s %s', $name, $version));
                }
                return 0;
        }
        $this->error('artisan laravels publish|config|info');
        return 1;
    }

    private function publish(): int
    {
        foreach (['laravels.php' => 'config/laravels.php', 'bin-laravels' => 'bin/laravels'] as $from => $to) {
            $target = base_path($to);
            // A configuration is its user's; a bin/laravels is this one or LaravelS's.
            if ($to === 'config/laravels.php' && file_exists($target) && !$this->option('force')) {
                $this->line("$to is kept; --force overwrites it");
                continue;
            }
            is_dir(dirname($target)) || mkdir(dirname($target), 0755, true);
            if (!copy(__DIR__ . "/resources/$from", $target)) {
                $this->error("$to cannot be written");
                return 1;
            }
            chmod($target, $from === 'bin-laravels' ? 0755 : 0644);
            $this->line("$to written");
        }
        return 0;
    }
}
