<?php

namespace App\Providers;

use Illuminate\Auth\GenericUser;
use Illuminate\Support\Facades\Auth;
use Illuminate\Support\Facades\Route;
use Illuminate\Support\ServiceProvider;

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
        Route::middleware('web')->group(base_path('routes/web.php'));
        // The provider that Laravel generates does this once everything is booted.
        Route::getRoutes()->refreshNameLookups();
    }
}
