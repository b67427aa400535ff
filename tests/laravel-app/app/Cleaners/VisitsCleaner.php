<?php

namespace App\Cleaners;

use Hhxsv5\LaravelS\Illuminate\Cleaners\BaseCleaner;

/** As LaravelS's manual has one: it puts back what is static. */
class VisitsCleaner extends BaseCleaner
{
    public static array $visits = [];

    public function clean()
    {
        $now = $this->currentApp['config']->get('app.name');
        self::$visits = $now === $this->snapshotApp['config']->get('app.name') ? [] : ['spoiled'];
    }
}
