<?php

namespace Hhxsv5\LaravelS\Illuminate\Cleaners;

interface CleanerInterface
{
    /** Puts back what a request changed; runs after each one. */
    public function clean();
}
