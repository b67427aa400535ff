<?php

declare(strict_types=1);

namespace Swoole;

/** Accepted, and without effect: a handler blocks its own process only. */
class Runtime
{
    public const HOOK_TCP = SWOOLE_HOOK_TCP;
    public const HOOK_UDP = SWOOLE_HOOK_UDP;
    public const HOOK_UNIX = SWOOLE_HOOK_UNIX;
    public const HOOK_UDG = SWOOLE_HOOK_UDG;
    public const HOOK_SSL = SWOOLE_HOOK_SSL;
    public const HOOK_TLS = SWOOLE_HOOK_TLS;
    public const HOOK_STREAM_FUNCTION = SWOOLE_HOOK_STREAM_FUNCTION;
    public const HOOK_FILE = SWOOLE_HOOK_FILE;
    public const HOOK_SLEEP = SWOOLE_HOOK_SLEEP;
    public const HOOK_PROC = SWOOLE_HOOK_PROC;
    public const HOOK_CURL = SWOOLE_HOOK_CURL;
    public const HOOK_NATIVE_CURL = SWOOLE_HOOK_NATIVE_CURL;
    public const HOOK_SOCKETS = SWOOLE_HOOK_SOCKETS;
    public const HOOK_STDIO = SWOOLE_HOOK_STDIO;
    public const HOOK_PDO_PGSQL = SWOOLE_HOOK_PDO_PGSQL;
    public const HOOK_PDO_ODBC = SWOOLE_HOOK_PDO_ODBC;
    public const HOOK_PDO_ORACLE = SWOOLE_HOOK_PDO_ORACLE;
    public const HOOK_PDO_SQLITE = SWOOLE_HOOK_PDO_SQLITE;
    public const HOOK_PDO_FIREBIRD = SWOOLE_HOOK_PDO_FIREBIRD;
    public const HOOK_NET_FUNCTION = SWOOLE_HOOK_NET_FUNCTION;
    public const HOOK_MONGODB = SWOOLE_HOOK_MONGODB;
    public const HOOK_STREAM_SELECT = SWOOLE_HOOK_STREAM_SELECT;
    public const HOOK_ALL = SWOOLE_HOOK_ALL;
    private static int $flags = 0;

    public static function enableCoroutine(int|bool $enable = SWOOLE_HOOK_ALL, int $flags = SWOOLE_HOOK_ALL): bool
    {
        self::$flags = is_int($enable) ? $enable : ($enable ? $flags : 0);
        return true;
    }

    public static function setHookFlags(int $flags): bool
    {
        self::$flags = $flags;
        return true;
    }

    public static function getHookFlags(): int
    {
        return self::$flags;
    }
}
