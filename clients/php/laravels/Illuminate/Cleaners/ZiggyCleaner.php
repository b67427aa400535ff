<?php

namespace Hhxsv5\LaravelS\Illuminate\Cleaners;

/** For tightenco/ziggy, which writes its routes into the first page only. */
class ZiggyCleaner extends BaseCleaner
{
    public function clean()
    {
        foreach (['Tightenco\Ziggy\BladeRouteGenerator', 'Tighten\Ziggy\BladeRouteGenerator'] as $class) {
            if (class_exists($class)) {
                $class::$generated = false;
            }
        }
    }
}
