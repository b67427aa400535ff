<?php

namespace App\Jobs;

use Illuminate\Bus\Queueable;
use Illuminate\Contracts\Queue\ShouldQueue;
use Illuminate\Foundation\Bus\Dispatchable;
use Illuminate\Queue\InteractsWithQueue;

/** Tells a user something, from a queue worker. */
class TellJob implements ShouldQueue
{
    use Dispatchable;
    use InteractsWithQueue;
    use Queueable;

    public function __construct(private int $user, private string $text)
    {
    }

    public function handle()
    {
        app('swoole')->pushUid($this->user, $this->text);
    }
}
