<?php

namespace Hhxsv5\LaravelS\Illuminate\Cleaners;

/** Nothing to do: the container of a request is always put back. */
class ContainerCleaner extends BaseCleaner
{
    public function clean()
    {
    }
}
