<?php

namespace App\Services;

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
        $server->push($frame->fd, "you said $frame->data");
    }

    public function onClose(Server $server, $fd, $reactorId)
    {
        Log::info('closed');
    }
}
