<?php

namespace Hhxsv5\LaravelS\Illuminate\Cleaners;

/** Nothing to do: the queued cookies of a request is always put back. */
class CookieCleaner extends BaseCleaner
{
    public function clean()
    {
    }
}
