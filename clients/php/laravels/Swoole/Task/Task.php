<?php

namespace Hhxsv5\LaravelS\Swoole\Task;

use Illuminate\Queue\SerializesModels;

/** LaravelS's task: handle() runs in a task process, and finish(), where there is one, in that which gave it. */
abstract class Task extends BaseTask
{
    use SerializesModels;

    /** @return bool whether it was given to a task process, or will be after its delay */
    public static function deliver(self $task, $bySendMessage = false)
    {
        return $task->task($task, $bySendMessage);
    }

    abstract public function handle();
}
