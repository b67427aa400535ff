<?php

declare(strict_types=1);

namespace Wsd;

/** The names of rooms, users and sessions on what stands for the server: Swoole has none of them. */
trait RoomsOf
{
    /** $info is what presence shows of the client there. */
    public function join(int $fd, string $room, mixed $info = null): bool
    {
        return $this->wsdRooms()->join($fd, $room, $info);
    }

    public function leave(int $fd, string $room): bool
    {
        return $this->wsdRooms()->leave($fd, $room);
    }

    /** @param string|list<string> $room */
    public function publish(
        string|array $room,
        string $data,
        int $opcode = WEBSOCKET_OPCODE_TEXT,
        int $except = 0,
    ): bool {
        return $this->wsdRooms()->publish($room, $data, $opcode, $except);
    }

    public function bind(int $fd, string|int $uid): bool
    {
        return $this->wsdRooms()->bind($fd, $uid);
    }

    public function unbind(int $fd): bool
    {
        return $this->wsdRooms()->unbind($fd);
    }

    public function pushUid(string|int $uid, string $data, int $opcode = WEBSOCKET_OPCODE_TEXT): bool
    {
        return $this->wsdRooms()->pushUid($uid, $data, $opcode);
    }

    public function closeUid(string|int $uid, int $code = 1000, string $reason = ''): bool
    {
        return $this->wsdRooms()->closeUid($uid, $code, $reason);
    }

    /** @return list<array{fd: int, uid: ?string}> */
    public function members(string $room): array
    {
        return $this->wsdRooms()->members($room);
    }

    public function session(int $fd): mixed
    {
        return $this->wsdRooms()->session($fd);
    }

    public function setSession(int $fd, mixed $value): bool
    {
        return $this->wsdRooms()->setSession($fd, $value);
    }

    abstract protected function wsdRooms(): App|Control;
}
