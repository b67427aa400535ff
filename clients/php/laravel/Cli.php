<?php

declare(strict_types=1);

namespace Wsd\Laravel;

use Illuminate\Contracts\Console\Kernel as ConsoleKernel;
use Wsd\App;
use Wsd\Control;
use Wsd\Keeper;
use Wsd\Launcher;
use Wsd\SwooleSettings;

/** `php bin/laravels`. */
final class Cli
{
    private const USAGE = <<<'TEXT'
        php bin/laravels start [-d] [-e ENVIRONMENT] [--watch]
                        serve; -d: in the background; --watch: reload when code changes
        php bin/laravels stop | restart | reload | info

        TEXT;

    public function __construct(private string $base)
    {
    }

    /** @param list<string> $words the command line */
    public function run(array $words): int
    {
        [$action, $daemon, $environment, $watch] = self::parse($words);
        if (App::isAppProcess()) {
            return (new Server($this->base))->serve();
        }
        if ($environment !== null) {
            // Laravel reads .env.NAME where that file is.
            putenv("APP_ENV=$environment");
            $_ENV['APP_ENV'] = $_SERVER['APP_ENV'] = $environment;
        }
        if (extension_loaded('swoole') || extension_loaded('openswoole')) {
            fwrite(STDERR, "wsd: the swoole extension is loaded; run this with a PHP that has not got it\n");
            return 1;
        }
        try {
            return match ($action) {
                'start' => $this->start($daemon, $watch),
                'stop' => $this->control('stop'),
                'reload' => $this->reload(),
                'restart' => $this->control('stop') === 1 ? 1 : $this->start(true),
                'info' => $this->info(),
                default => $this->usage($action),
            };
        } catch (\RuntimeException $error) {
            fwrite(STDERR, "wsd: {$error->getMessage()}\n");
            return 1;
        } catch (\Throwable $error) {
            // Left to Laravel it is shown, and the exit code says that all is well.
            fwrite(STDERR, "wsd: {$error->getMessage()} in {$error->getFile()} on line {$error->getLine()}\n");
            return 1;
        }
    }

    /** @return array<string, string> */
    public static function versions(string $laravel): array
    {
        try {
            $wsd = trim((new Control())->run(['--version'])[1]) ?: Launcher::binary();
        } catch (\RuntimeException $error) {
            $wsd = $error->getMessage();
        }
        return ['PHP' => PHP_VERSION, 'Laravel' => $laravel, 'wsd' => $wsd];
    }

    /** @return array{0: string, 1: bool, 2: string|null, 3: bool} */
    private static function parse(array $words): array
    {
        [$action, $daemon, $environment, $watch] = ['help', false, null, false];
        array_shift($words);
        while ($words !== []) {
            $word = array_shift($words);
            match (true) {
                $word === '-d', $word === '--daemonize' => $daemon = true,
                $word === '--watch' => $watch = true,
                $word === '-e', $word === '--env' => $environment = array_shift($words),
                str_starts_with($word, '--env=') => $environment = substr($word, 6),
                // The lock of wsd needs no check to be skipped.
                $word === '-i', $word === '--ignore' => null,
                default => $action = $word,
            };
        }
        return [$action, $daemon, $environment, $watch];
    }

    private function start(bool $daemon, bool $watch = false): int
    {
        $app = $this->boot();
        $config = Settings::of($app);
        Settings::build($app, $config);
        $settings = Settings::swoole($config);
        foreach ([...Settings::notices($config), ...$settings->notices] as $notice) {
            fwrite(STDERR, "wsd: $notice\n");
        }
        if ($daemon) {
            $settings->wsd['daemonize'] = true;
        }
        if ($watch && !empty($settings->wsd['daemonize'])) {
            throw new \RuntimeException('--watch is for development, and does not go with -d or daemonize');
        }
        $address = $settings->wsd['listen'][0];
        fwrite(STDERR, "wsd: Laravel {$app->version()} on $address\n");
        return Launcher::start([
            'handler' => 'app',
            'app.command' => Launcher::command(),
            'app.cwd' => $this->base,
            ...$settings->wsd,
        ], $watch ? Keeper::watching((string) $settings->wsd['runtime_dir'], [$this->base]) : null);
    }

    /** The application was loaded here before anything is asked of the server. */
    private function reload(): int
    {
        $app = $this->boot();
        Settings::build($app, Settings::of($app));
        return $this->control('reload');
    }

    private function control(string $action): int
    {
        $place = Remote::place($this->settings());
        [$code, $output] = (new Control($place))->run([$action], false);
        echo $output;
        return $code;
    }

    private function info(): int
    {
        foreach (self::versions($this->boot()->version()) as $name => $version) {
            printf("%-12s %s\n", $name, $version);
        }
        return $this->control('status');
    }

    private function settings(): SwooleSettings
    {
        return Settings::swoole(Settings::of($this->boot()));
    }

    private function boot(): \Illuminate\Contracts\Foundation\Application
    {
        $app = require $this->base . '/bootstrap/app.php';
        $app->make(ConsoleKernel::class)->bootstrap();
        return $app;
    }

    private function usage(string $action): int
    {
        fwrite(STDERR, ($action === 'help' ? '' : "wsd: no such command: $action\n") . self::USAGE);
        return $action === 'help' ? 0 : 1;
    }
}
