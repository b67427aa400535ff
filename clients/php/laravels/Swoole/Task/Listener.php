<?php

namespace Hhxsv5\LaravelS\Swoole\Task;

/**
 * LaravelS's listener of an event. Its handle() is given the event, as in LaravelS since 2022, and may
 * do without it, as before: no declaration fits both, so there is none.
 */
abstract class Listener
{
    /** @var Event|null */
    protected $event;

    public function __construct(?Event $event = null)
    {
        $this->event = $event;
    }
}
