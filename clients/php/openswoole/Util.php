<?php

declare(strict_types=1);

namespace OpenSwoole;

use Wsd\SwooleErrors;
use Wsd\SwooleSettings;

/** Swoole's functions as OpenSwoole names them. */
final class Util
{
    public static function getVersion(): string
    {
        return SWOOLE_VERSION;
    }

    public static function getCPUNum(): int
    {
        return SwooleSettings::cpus();
    }

    /** @return array<string, string> */
    public static function getLocalIp(): array
    {
        return swoole_get_local_ip();
    }

    public static function getLastErrorCode(): int
    {
        return SwooleErrors::$last;
    }

    public static function errorCode(): int
    {
        return SwooleErrors::$last;
    }

    public static function getErrorMessage(int $errorCode, ?int $errorType = null): string
    {
        return SwooleErrors::message($errorCode);
    }

    public static function clearError(): void
    {
        SwooleErrors::$last = 0;
    }

    public static function log(int $level, string $message): void
    {
        swoole_error_log($level, $message);
    }

    public static function setProcessName(string $name): void
    {
        swoole_set_process_name($name);
    }

    /** Accepted, and without effect. */
    public static function setAio(array $settings): bool
    {
        return true;
    }
}
