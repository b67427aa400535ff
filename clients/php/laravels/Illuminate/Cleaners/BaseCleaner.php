<?php

namespace Hhxsv5\LaravelS\Illuminate\Cleaners;

use Illuminate\Container\Container;

/** LaravelS's base of a class in `cleaners`. One value of it lives in each process. */
abstract class BaseCleaner implements CleanerInterface
{
    protected $currentApp;
    protected $snapshotApp;

    /**
     * @param Container $currentApp the application that answers requests
     * @param Container $snapshotApp a copy with the configuration as it was after the start
     */
    public function __construct(Container $currentApp, Container $snapshotApp)
    {
        $this->currentApp = $currentApp;
        $this->snapshotApp = $snapshotApp;
    }
}
