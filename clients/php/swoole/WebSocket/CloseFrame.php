<?php

declare(strict_types=1);

namespace Swoole\WebSocket;

/** A close frame, to push or, with open_websocket_close_frame, as onMessage sees it. */
class CloseFrame extends Frame
{
    public $opcode = WEBSOCKET_OPCODE_CLOSE;
    public $code = WEBSOCKET_CLOSE_NORMAL;
    public $reason = '';
}
