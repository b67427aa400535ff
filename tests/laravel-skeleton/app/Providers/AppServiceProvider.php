<?php

namespace App\Providers;

use Illuminate\Auth\GenericUser;
use Illuminate\Support\Facades\Auth;
use Illuminate\Support\Facades\Event;
use Illuminate\Support\ServiceProvider;

/** As the old skeleton's, but for the routes, which bootstrap/app.php names. */
class AppServiceProvider extends ServiceProvider
{
    public function register()
    {
        $this->app->singleton('counter', fn () => new \ArrayObject(['count' => 0]));
    }

    public function boot()
    {
        Auth::viaRequest('query', function ($request) {
            return $request->query('token') === 'good' ? new GenericUser(['id' => 7]) : null;
        });
        Event::listen('laravels.received_request', function ($request, $app) {
            $request->headers->set('x-received', $app['config']['app.name']);
        });
        Event::listen('laravels.generated_response', function ($request, $response) {
            $response->headers->set('x-generated', $request->header('x-received'));
        });
    }
}
