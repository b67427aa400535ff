<?php

namespace Hhxsv5\LaravelS\Illuminate\Cleaners;

/** Nothing to do: the configuration of a request is always put back. */
class ConfigCleaner extends BaseCleaner
{
    public function clean()
    {
    }
}
