<?php

declare(strict_types=1);

namespace Wsd\Laravel;

use Wsd\Control;
use Wsd\SwooleSettings;

/** `app('swoole')` outside of the server: in artisan, queue workers, cron, PHP-FPM. */
final class Remote
{
    private Control $control;

    public function __construct(SwooleSettings $settings)
    {
        $this->control = new Control(self::place($settings));
    }

    /** @return array<string, string> the keys that find the server */
    public static function place(SwooleSettings $settings): array
    {
        return array_intersect_key($settings->wsd, ['runtime_dir' => 1, 'pid_file' => 1]);
    }

    public function push(int $fd, string $data): bool
    {
        return $this->control->push($fd, $data);
    }

    public function broadcast(string $data): bool
    {
        return $this->control->broadcast($data);
    }

    public function disconnect(int $fd, int $code = 1000, string $reason = ''): bool
    {
        return $this->control->close($fd, $code, $reason);
    }

    public function close(int $fd): bool
    {
        return $this->control->close($fd);
    }

    public function exist(int $fd): bool
    {
        return in_array($fd, $this->getClientList(), true);
    }

    public function isEstablished(int $fd): bool
    {
        return $this->exist($fd);
    }

    /** @return list<int> every fd */
    public function getClientList(): array
    {
        return array_column($this->control->connections(), 'fd');
    }

    public function stats(): array
    {
        return $this->control->status();
    }
}
