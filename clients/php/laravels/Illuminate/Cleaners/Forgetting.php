<?php

namespace Hhxsv5\LaravelS\Illuminate\Cleaners;

use Illuminate\Support\Facades\Facade;

/** @internal a cleaner of services that keep something of a request */
abstract class Forgetting extends BaseCleaner
{
    /** @var list<string> names in the container */
    protected $instances = [];

    public function clean()
    {
        foreach ($this->instances as $instance) {
            $this->currentApp->forgetInstance($instance);
            Facade::clearResolvedInstance($instance);
        }
    }
}
