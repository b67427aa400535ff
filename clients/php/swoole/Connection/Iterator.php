<?php

declare(strict_types=1);

namespace Swoole\Connection;

use Swoole\Server;
use Wsd\App;

/** Every fd of the server, fetched a page at a time: `$server->connections`. */
class Iterator implements \Iterator, \Countable, \ArrayAccess
{
    private const PAGE = 4096;
    /** @var list<int> */
    private array $page = [];
    private int $at = 0;

    public function __construct(private App $app, private ?Server $server = null)
    {
    }

    public function rewind(): void
    {
        $this->page = $this->app->list(0, self::PAGE);
        $this->at = 0;
    }

    public function valid(): bool
    {
        return isset($this->page[$this->at]);
    }

    public function current(): mixed
    {
        return $this->page[$this->at] ?? null;
    }

    public function key(): mixed
    {
        return $this->at;
    }

    public function next(): void
    {
        $this->at++;
        if ($this->at === count($this->page) && $this->at >= self::PAGE) {
            $this->page = $this->app->list($this->page[$this->at - 1], self::PAGE);
            $this->at = 0;
        }
    }

    public function count(): int
    {
        return $this->app->stats()['connections'] ?? 0;
    }

    public function offsetExists(mixed $fd): bool
    {
        return $this->app->exists((int) $fd);
    }

    public function offsetGet(mixed $fd): mixed
    {
        return $this->server?->getClientInfo((int) $fd) ?? false;
    }

    public function offsetSet(mixed $fd, mixed $value): void
    {
    }

    public function offsetUnset(mixed $fd): void
    {
    }
}
