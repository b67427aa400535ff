<?php

declare(strict_types=1);

namespace Swoole\Server;

/** One more address that a server listens on, with callbacks of its own; those that it lacks are the server's. */
final class Port
{
    use \Wsd\Missing;

    public $host;
    public $port;
    public $type;
    public $sock = -1;
    public $ssl = false;
    public $setting = [];
    public $connections = null;

    /** @var array<string, callable> */
    private array $handlers = [];

    /** @internal made by listen() */
    public function __construct(string $host, int $port, int $type)
    {
        [$this->host, $this->port, $this->type] = [$host, $port, $type];
    }

    public function set(array $settings): void
    {
        $this->setting = array_merge($this->setting, $settings);
    }

    public function on(string $event_name, callable $callback): bool
    {
        $name = strtolower($event_name);
        $known = ['open', 'message', 'close', 'request', 'handshake', 'beforehandshakeresponse', 'attach',
            'connect', 'disconnect'];
        if (!in_array($name, $known, true)) {
            $message = "$event_name is never called: see docs/swoole.md";
            trigger_error("Swoole\\Server\\Port::on(): $message", E_USER_WARNING);
            return false;
        }
        $this->handlers[$name] = $callback;
        return true;
    }

    public function getCallback(string $event_name): ?callable
    {
        return $this->handlers[strtolower($event_name)] ?? null;
    }

    /** @internal whether it takes WebSockets */
    public function opensWebSockets(): bool
    {
        return (bool) ($this->setting['open_websocket_protocol'] ?? true);
    }
}
