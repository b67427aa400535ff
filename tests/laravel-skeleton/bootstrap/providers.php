<?php

return [
    Wsd\Laravel\ServiceProvider::class,
    App\Providers\AppServiceProvider::class,
];
