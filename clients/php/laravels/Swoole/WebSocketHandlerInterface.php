<?php

namespace Hhxsv5\LaravelS\Swoole;

use Swoole\Http\Request;
use Swoole\WebSocket\Frame;
use Swoole\WebSocket\Server;

/** LaravelS's interface of a handler class. One value of it lives in each process. */
interface WebSocketHandlerInterface
{
    public function __construct();

    public function onOpen(Server $server, Request $request);

    public function onMessage(Server $server, Frame $frame);

    public function onClose(Server $server, $fd, $reactorId);
}
