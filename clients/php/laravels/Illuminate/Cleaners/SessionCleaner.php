<?php

namespace Hhxsv5\LaravelS\Illuminate\Cleaners;

/** Nothing to do: the session of a request is always put back. */
class SessionCleaner extends BaseCleaner
{
    public function clean()
    {
    }
}
