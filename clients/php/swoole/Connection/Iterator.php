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
        $this->page = $this->page(0);
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
            $this->page = $this->page($this->page[$this->at - 1]);
            $this->at = 0;
        }
    }

    public function count(): int
    {
        return ($this->app->stats()['connections'] ?? 0) + (int) ($this->server?->leaving() !== null);
    }

    public function offsetExists(mixed $fd): bool
    {
        return $this->server?->exist((int) $fd) ?? $this->app->exists((int) $fd);
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

    /** @return list<int> */
    private function page(int $after): array
    {
        return $this->server?->clients($after, self::PAGE) ?? $this->app->list($after, self::PAGE);
    }
}
