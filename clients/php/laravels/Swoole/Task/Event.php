<?php

namespace Hhxsv5\LaravelS\Swoole\Task;

use Illuminate\Queue\SerializesModels;

/** LaravelS's event: its listeners are run by a task process. */
abstract class Event extends BaseTask
{
    use SerializesModels;

    /** @var list<class-string<Listener>> */
    protected $listeners = [];

    public function getListeners()
    {
        return $this->listeners;
    }

    /** @return bool whether it was given to a task process, or will be after its delay */
    public static function fire(self $event)
    {
        return $event->task($event);
    }
}
