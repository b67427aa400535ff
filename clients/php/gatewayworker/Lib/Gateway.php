<?php

declare(strict_types=1);

namespace GatewayWorker\Lib;

use Wsd\App;
use Wsd\Control;

/**
 * GatewayWorker's verbs, on wsd: in an application process, and over the control socket in any other
 * PHP program of this host. A client's id is its fd, as a number. A group is a room.
 *
 * Messages are texts; $opcode, behind GatewayWorker's arguments, sends binary ones. What GatewayWorker
 * has for its own processes ($registerAddress, Context, raw protocols) is not there.
 */
final class Gateway
{
    /** @var array<string, string> what finds the server outside of its processes: runtime_dir, pid_file */
    public static array $settings = [];

    /**
     * In a cluster, whoever leaves out more than one client reaches those of this node alone.
     *
     * @param list<int|string>|null $to
     * @param list<int|string>|int|string|null $except
     */
    public static function sendToAll(
        string $message,
        ?array $to = null,
        array|int|string|null $except = null,
        int $opcode = App::TEXT,
    ): void {
        $except = self::fds($except);
        if ($to === null && count($except) <= 1) {
            self::server()->broadcast($message, self::opcode($opcode), $except[0] ?? 0);
            return;
        }
        foreach (array_diff(self::fds($to ?? self::getAllClientIdList()), $except) as $fd) {
            self::server()->push($fd, $message, self::opcode($opcode));
        }
    }

    /** False where the client is gone or reads too slowly. */
    public static function sendToClient(int|string $client_id, string $message, int $opcode = App::TEXT): bool
    {
        return self::server()->push((int) $client_id, $message, self::opcode($opcode));
    }

    /** To the client whose event is handled. */
    public static function sendToCurrentClient(string $message, int $opcode = App::TEXT): bool
    {
        return self::sendToClient(self::current(), $message, $opcode);
    }

    /** Closes a connection, behind a last message where one is given. */
    public static function closeClient(int|string $client_id, ?string $message = null): bool
    {
        if (!self::isOnline($client_id)) {
            return false;
        }
        $message === null || self::sendToClient($client_id, $message);
        self::server()->close((int) $client_id);
        return true;
    }

    public static function closeCurrentClient(?string $message = null): bool
    {
        return self::closeClient(self::current(), $message);
    }

    public static function destoryClient(int|string $client_id): bool
    {
        return self::closeClient($client_id);
    }

    public static function destoryCurrentClient(): bool
    {
        return self::closeCurrentClient();
    }

    public static function isOnline(int|string $client_id): int
    {
        return self::server()->info((int) $client_id) === null ? 0 : 1;
    }

    public static function bindUid(int|string $client_id, int|string $uid): bool
    {
        return self::server()->bind((int) $client_id, $uid);
    }

    /** Does nothing where the connection is another user's. */
    public static function unbindUid(int|string $client_id, int|string $uid): bool
    {
        return self::getUidByClientId($client_id) === (string) $uid && self::server()->unbind((int) $client_id);
    }

    public static function isUidOnline(int|string $uid): int
    {
        return self::getClientIdByUid($uid) === [] ? 0 : 1;
    }

    /** @param int|string|list<int|string> $uid @return list<int> */
    public static function getClientIdByUid(int|string|array $uid): array
    {
        $of = fn ($uid): array => array_column(self::server()->connectionsOf($uid), 'fd');
        return array_merge(...array_map($of, array_values((array) $uid)));
    }

    /** Null where the connection is nobody's. */
    public static function getUidByClientId(int|string $client_id): ?string
    {
        return self::server()->info((int) $client_id)['uid'] ?? null;
    }

    /** @param int|string|list<int|string> $uid */
    public static function sendToUid(int|string|array $uid, string $message, int $opcode = App::TEXT): void
    {
        foreach ((array) $uid as $one) {
            self::server()->pushUid($one, $message, self::opcode($opcode));
        }
    }

    public static function joinGroup(int|string $client_id, int|string $group): bool
    {
        return self::server()->join((int) $client_id, (string) $group);
    }

    public static function leaveGroup(int|string $client_id, int|string $group): bool
    {
        return self::server()->leave((int) $client_id, (string) $group);
    }

    /** Takes every member out of a group. */
    public static function ungroup(int|string $group): bool
    {
        foreach (self::getClientIdListByGroup($group) as $fd) {
            self::leaveGroup($fd, $group);
        }
        return true;
    }

    /**
     * To each member of a group, or of several, once.
     *
     * @param int|string|list<int|string> $group
     * @param list<int|string>|int|string|null $except
     */
    public static function sendToGroup(
        int|string|array $group,
        string $message,
        array|int|string|null $except = null,
        int $opcode = App::TEXT,
    ): void {
        $groups = array_map('strval', array_values((array) $group));
        $except = self::fds($except);
        // One publish for each part of many groups would reach a member of several parts more than once.
        if (count($except) <= 1 && count($groups) <= App::ROOMS_MAX) {
            $groups === [] || self::server()->publish($groups, $message, self::opcode($opcode), $except[0] ?? 0);
            return;
        }
        $members = array_merge(...array_map(self::getClientIdListByGroup(...), $groups));
        foreach (array_diff(array_unique($members), $except) as $fd) {
            self::server()->push($fd, $message, self::opcode($opcode));
        }
    }

    /** @return array<int, int> each member's id, under itself */
    public static function getClientIdListByGroup(int|string $group): array
    {
        $fds = array_column(self::server()->members((string) $group), 'fd');
        return array_combine($fds, $fds);
    }

    public static function getClientIdCountByGroup(int|string $group): int
    {
        return count(self::getClientIdListByGroup($group));
    }

    public static function getClientCountByGroup(int|string $group): int
    {
        return self::getClientIdCountByGroup($group);
    }

    /** @return array<string, string> the users of a group, each under itself */
    public static function getUidListByGroup(int|string $group): array
    {
        $uids = array_filter(array_column(self::server()->members((string) $group), 'uid'), is_string(...));
        return array_combine($uids, $uids);
    }

    public static function getUidCountByGroup(int|string $group): int
    {
        return count(self::getUidListByGroup($group));
    }

    /** @return array<int, array<string, mixed>> what is kept with each member */
    public static function getClientSessionsByGroup(int|string $group): array
    {
        return array_map(fn (int $fd): array => self::getSession($fd) ?? [], self::getClientIdListByGroup($group));
    }

    /** @return array<int, array<string, mixed>> what is kept with each client, or with each of a group */
    public static function getAllClientSessions(int|string $group = ''): array
    {
        return (string) $group !== '' ? self::getClientSessionsByGroup($group)
            : array_map(fn (int $fd): array => self::getSession($fd) ?? [], self::getAllClientIdList());
    }

    /** @return array<int, int> the clients, in a cluster those of this node */
    public static function getAllClientIdList(): array
    {
        $server = self::server();
        $fds = $server instanceof App ? $server->list() : array_column($server->connections(), 'fd');
        return array_combine($fds, $fds);
    }

    public static function getAllClientIdCount(): int
    {
        return count(self::getAllClientIdList());
    }

    public static function getAllClientCount(): int
    {
        return self::getAllClientIdCount();
    }

    /** @return array<string, string> the users that have a connection, each under itself */
    public static function getAllUidList(): array
    {
        $uids = array_filter(array_map(self::getUidByClientId(...), self::getAllClientIdList()), is_string(...));
        return array_combine($uids, $uids);
    }

    public static function getAllUidCount(): int
    {
        return count(self::getAllUidList());
    }

    /** @return array<string, mixed>|null null where the client is gone */
    public static function getSession(int|string $client_id): ?array
    {
        $info = self::server()->info((int) $client_id);
        return $info === null ? null : (array) json_decode($info['session'] ?? '[]', true);
    }

    /** @param array<string, mixed> $session */
    public static function setSession(int|string $client_id, array $session): bool
    {
        return self::server()->setSession((int) $client_id, $session);
    }

    /** Sets some keys of a session. Two who do so at once may undo each other. @param array<string, mixed> $session */
    public static function updateSession(int|string $client_id, array $session): bool
    {
        $before = self::getSession($client_id);
        return $before !== null && self::setSession($client_id, array_replace_recursive($before, $session));
    }

    public static function __callStatic(string $name, array $arguments): never
    {
        throw new \BadMethodCallException("wsd has no Gateway::$name(): docs/rooms.md lists GatewayWorker's verbs");
    }

    /** GatewayWorker has `$raw` in this place, which is mostly false. */
    private static function opcode(int $opcode): int
    {
        return $opcode === 0 ? App::TEXT : $opcode;
    }

    private static function server(): App|Control
    {
        return App::running() ?? new Control(self::$settings);
    }

    private static function current(): int
    {
        return App::running()?->handling()
            ?? throw new \LogicException('no event of a client is handled here: name the client');
    }

    /** @return list<int> */
    private static function fds(array|int|string|null $clients): array
    {
        return array_map('intval', array_values((array) ($clients ?? [])));
    }
}
