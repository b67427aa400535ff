<?php

declare(strict_types=1);

namespace Wsd\Laravel;

use Illuminate\Support\ServiceProvider as IlluminateProvider;
use Wsd\App;

/** Brings `artisan laravels`, the configuration, and `app('swoole')` outside of the server. */
class ServiceProvider extends IlluminateProvider
{
    public function register()
    {
        if (!App::isAppProcess()) {
            $this->app->singleton('swoole', fn ($app) => new Remote(Settings::swoole(Settings::of($app))));
        }
        if ($this->app->runningInConsole()) {
            $this->commands([Command::class, StartCommand::class]);
        }
    }

    public function boot()
    {
        $this->publishes([
            __DIR__ . '/resources/laravels.php' => base_path('config/laravels.php'),
            __DIR__ . '/resources/bin-laravels' => base_path('bin/laravels'),
        ], 'laravels');
    }
}
