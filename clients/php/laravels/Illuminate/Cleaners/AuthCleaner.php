<?php

namespace Hhxsv5\LaravelS\Illuminate\Cleaners;

/** Nothing to do: the guards of a request is always put back. */
class AuthCleaner extends BaseCleaner
{
    public function clean()
    {
    }
}
