<?php

namespace Hhxsv5\LaravelS\Swoole\Task;

/** LaravelS's listener of an event. */
abstract class Listener
{
    /** @var Event */
    protected $event;

    public function __construct(Event $event)
    {
        $this->event = $event;
    }

    /** @return bool|void false: the listeners after it are not run */
    abstract public function handle();
}
