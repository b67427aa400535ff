<?php

declare(strict_types=1);

namespace Wsd;

/**
 * Rooms, users and sessions of an application process. A membership lasts from the join to the leave
 * or the end of the connection: a reload, an upgrade and the death of a process do not touch it.
 *
 * What is done to a client waits for the worker's word, so that whatever is published next finds it
 * done. A name that is too long, or a room over a limit, is false with a warning.
 */
trait Rooms
{
    /** Puts a client into a room, wherever the client is. $info is what presence shows of it there. */
    public function join(int $fd, string $room, mixed $info = null): bool
    {
        $json = $info === null ? '' : json_encode($info, JSON_THROW_ON_ERROR);
        return $this->change(Protocol::JOIN, $fd, Protocol::string($room) . $json, 'join');
    }

    public function leave(int $fd, string $room): bool
    {
        return $this->change(Protocol::LEAVE, $fd, $room, 'leave');
    }

    /** @return list<string> the rooms of a client */
    public function rooms(int $fd): array
    {
        return $this->known($fd)['rooms'] ?? [];
    }

    /** The user of a client; null where it is nobody's. */
    public function uid(int $fd): ?string
    {
        return $this->known($fd)['uid'] ?? null;
    }

    /**
     * Sends a message to the members of a room, or of several: who is in more than one gets it once.
     *
     * @param string|list<string> $room
     */
    public function publish(string|array $room, string $data, int $opcode = self::TEXT, int $except = 0): bool
    {
        return $this->publishTo(array_map(fn ($name) => "#$name", (array) $room), $data, $opcode, $except);
    }

    /**
     * As publish.
     *
     * @param string|list<string> $room
     * @return array{queued: int, full: int, workers: int, answered: int, refused: int, verdict?: string}
     *     what became of it; where nobody was asked, zeros with the verdict that says why
     */
    public function publishConfirmed(
        string|array $room,
        string $data,
        int $opcode = self::TEXT,
        int $except = 0,
    ): array {
        return $this->tally(array_map(fn ($name) => "#$name", (array) $room), $data, $opcode, $except);
    }

    /** Makes a connection a user's. A connection has one user; a user may have many connections. */
    public function bind(int $fd, string|int $uid): bool
    {
        if ($uid === '') {
            return $this->refused('bind', $fd, 'a uid has at least one byte');
        }
        return $this->change(Protocol::BIND, $fd, (string) $uid, 'bind');
    }

    /** Makes a connection nobody's. */
    public function unbind(int $fd): bool
    {
        return $this->change(Protocol::BIND, $fd, '', 'unbind');
    }

    /** Sends a message to every connection of a user. */
    public function pushUid(string|int $uid, string $data, int $opcode = self::TEXT): bool
    {
        return $this->publishTo(["@$uid"], $data, $opcode, 0);
    }

    /** @return array{queued: int, full: int, workers: int, answered: int, refused: int} zeros: nobody is there */
    public function pushUidConfirmed(string|int $uid, string $data, int $opcode = self::TEXT): array
    {
        return $this->tally(["@$uid"], $data, $opcode, 0);
    }

    /** Closes every connection of a user. False where the user has none, or nobody knows of some. */
    public function closeUid(string|int $uid, int $code = 1000, string $reason = ''): bool
    {
        $payload = Protocol::string((string) $uid) . $reason;
        $answer = $this->ask(Protocol::CLOSE_USER, 0, $code, $payload, Protocol::FLAG_VERDICT);
        return (Protocol::VERDICTS[$answer['code']] ?? 'unknown') === 'queued';
    }

    /** @return list<array{fd: int, uid: ?string}> the members of a room, of all workers and nodes that answer */
    public function members(string $room): array
    {
        return json_decode($this->ask(Protocol::MEMBERS, 0, 0, "#$room")['payload'] ?: '[]', true);
    }

    /** @return list<array{fd: int, uid: ?string}> the connections of a user */
    public function connectionsOf(string|int $uid): array
    {
        return json_decode($this->ask(Protocol::MEMBERS, 0, 0, "@$uid")['payload'] ?: '[]', true);
    }

    /** What setSession() kept with a client's connection; null where nothing is kept. */
    public function session(int $fd): mixed
    {
        $json = $this->known($fd)['session'] ?? null;
        return $json === null ? null : json_decode($json, true);
    }

    /** Keeps a value, as JSON, with a client's connection: over reloads and in whatever process. */
    public function setSession(int $fd, mixed $value): bool
    {
        $json = $value === null ? '' : json_encode($value, JSON_THROW_ON_ERROR);
        return $this->change(Protocol::SESSION, $fd, $json, 'setSession');
    }

    /** Closes a connection at that time (Unix, in seconds), at once where that is over; null: never. */
    public function expireAt(int $fd, int|float|null $time): bool
    {
        $at = $time === null ? 0 : max(1, (int) ($time * 1000));
        return $this->change(Protocol::EXPIRE, $fd, pack('P', $at), 'expireAt');
    }

    /** What is known of a client, and at its end what it had. */
    private function known(int $fd): array
    {
        return ($this->had['fd'] ?? 0) === $fd ? $this->had : $this->info($fd) ?? [];
    }

    private function change(int $kind, int $fd, string $payload, string $what): bool
    {
        $answer = $this->ask($kind, $fd, 0, $payload, Protocol::FLAG_VERDICT);
        $verdict = Protocol::VERDICTS[$answer['code']] ?? 'unknown';
        return $verdict === 'queued' || $verdict === 'relayed' || $this->refused($what, $fd, $verdict);
    }

    /** @param list<string> $topics */
    private function publishTo(array $topics, string $data, int $opcode, int $except): bool
    {
        if (strlen($data) > $this->most) {
            return $this->refused('publish', 0, 'too_big');
        }
        if (!$this->isWhole($data, $opcode)) {
            return $this->refused('publish', 0, 'invalid_text');
        }
        if ($topics === [] || count($topics) > self::ROOMS_MAX) {
            return $this->refused('publish', 0, 'name 1 to ' . self::ROOMS_MAX . ' rooms');
        }
        foreach ($topics as $topic) {
            if (strlen($topic) > self::TOPIC_BYTES_MAX || preg_match('//u', $topic) !== 1) {
                return $this->refused('publish', 0, 'a name has at most 255 bytes of UTF-8');
            }
        }
        $payload = self::topics($topics) . $data;
        $this->say(Protocol::frame(Protocol::PUBLISH, 0, $opcode, 0, $except, $payload));
        return true;
    }

    /** @param list<string> $topics */
    private function tally(array $topics, string $data, int $opcode, int $except): array
    {
        $payload = self::topics($topics) . $data;
        $answer = $this->ask(Protocol::PUBLISH, $except, $opcode, $payload, Protocol::FLAG_VERDICT);
        if (($answer['kind'] ?? 0) === Protocol::TALLY) {
            return json_decode($answer['payload'], true);
        }
        $verdict = Protocol::VERDICTS[$answer['code']] ?? 'unknown';
        $this->refused('publish', 0, $verdict);
        return ['queued' => 0, 'full' => 0, 'workers' => 0, 'answered' => 0, 'refused' => 0, 'verdict' => $verdict];
    }

    /** @param list<string> $topics */
    private static function topics(array $topics): string
    {
        return pack('V', count($topics)) . implode('', array_map(Protocol::string(...), $topics));
    }
}
