<?php

namespace Hhxsv5\LaravelS\Illuminate\Cleaners;

/** Nothing to do: the request of a request is always put back. */
class RequestCleaner extends BaseCleaner
{
    public function clean()
    {
    }
}
