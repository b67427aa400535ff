<?php

namespace Hhxsv5\LaravelS\Illuminate;

/** So that a config/app.php that names LaravelS's provider goes on to work. */
class LaravelSServiceProvider extends \Wsd\Laravel\ServiceProvider
{
}
