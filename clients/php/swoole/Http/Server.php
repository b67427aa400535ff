<?php

declare(strict_types=1);

namespace Swoole\Http;

/** Plain HTTP alone. */
class Server extends \Swoole\Server
{
    protected function check(): void
    {
        if (!isset($this->handlers['request'])) {
            throw new \Swoole\Exception('require onRequest callback');
        }
    }
}
