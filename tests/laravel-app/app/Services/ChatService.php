<?php

namespace App\Services;

use App\Tasks\NewsEvent;
use App\Tasks\RelayTask;
use App\Tasks\ShoutTask;
use Hhxsv5\LaravelS\Swoole\Task\Event;
use Hhxsv5\LaravelS\Swoole\Task\Task;
use Hhxsv5\LaravelS\Swoole\WebSocketHandlerInterface;
use Illuminate\Support\Facades\Auth;
use Illuminate\Support\Facades\Log;
use Swoole\Http\Request;
use Swoole\WebSocket\Frame;
use Swoole\WebSocket\Server;

class ChatService implements WebSocketHandlerInterface
{
    public function __construct()
    {
    }

    public function onOpen(Server $server, Request $request)
    {
        Log::info('opened');
        session(['opened' => session('opened', 0) + 1]);
        $user = Auth::id() ?? 'nobody';
        $server->push($request->fd, "welcome {$request->server['path_info']} $user " . session('name', 'unnamed'));
    }

    public function onMessage(Server $server, Frame $frame)
    {
        if ($frame->data === 'throw') {
            throw new \RuntimeException('as told');
        }
        [$word, $rest] = explode(' ', $frame->data, 2) + [1 => ''];
        $answer = match ($word) {
            'deliver' => Task::deliver((new ShoutTask($frame->fd, $rest))->setTries(3)),
            'later' => Task::deliver((new ShoutTask($frame->fd, $rest))->delay(0.02)),
            'relay' => Task::deliver(new RelayTask($frame->fd, $rest)),
            'fire' => Event::fire(new NewsEvent($frame->fd, $rest)),
            'table' => array_map(fn (array $row) => $row['value'], iterator_to_array($server->wsTable)),
            default => null,
        };
        $server->push($frame->fd, $answer === null ? "you said $frame->data" : json_encode($answer));
    }

    public function onClose(Server $server, $fd, $reactorId)
    {
        Log::info('closed');
    }
}
