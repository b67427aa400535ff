<?php

declare(strict_types=1);

namespace Wsd\Laravel;

use Wsd\Control;
use Wsd\SwooleSettings;

/** `app('swoole')` outside of the server: in artisan, queue workers, cron, PHP-FPM. */
final class Remote
{
    use \Wsd\RoomsOf;

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

    /** False when the client is gone or reads too slowly. */
    public function push(int $fd, string $data, int $opcode = WEBSOCKET_OPCODE_TEXT): bool
    {
        return $this->control->push($fd, $data, $opcode);
    }

    public function broadcast(string $data, int $opcode = WEBSOCKET_OPCODE_TEXT): bool
    {
        return $this->control->broadcast($data, $opcode);
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
        return $this->getClientInfo($fd) !== false;
    }

    public function isEstablished(int $fd): bool
    {
        return $this->exist($fd);
    }

    /** @return list<int> every fd */
    public function getClientList(): array
    {
        return $this->control->fds();
    }

    /** @return array<string, mixed>|false what wsd knows of a client; false also where nobody can tell */
    public function getClientInfo(int $fd): array|false
    {
        return $this->control->infoIfKnown($fd) ?? false;
    }

    protected function wsdRooms(): Control
    {
        return $this->control;
    }

    /** Starts processes with the code as it is on disk now; clients stay. False where that failed. */
    public function reload(): bool
    {
        return $this->control->reload()['ok'];
    }

    /** @return array<string, mixed> the object of `wsd status --json` */
    public function stats(): array
    {
        return $this->control->status();
    }
}
