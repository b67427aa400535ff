<?php

namespace Hhxsv5\LaravelS\Illuminate\Cleaners;

/** For lavary/laravel-menu. */
class MenuCleaner extends Forgetting
{
    protected $instances = ['Lavary\\Menu\\Menu'];
}
