<?php

declare(strict_types=1);

namespace Wsd;

/**
 * The server as the process sees it that the user started: what callbacks of the server's life ask of
 * it there goes by its control socket.
 */
final class Outside extends App
{
    private Control $control;

    public function __construct(string $runtimeDir)
    {
        parent::__construct();
        $this->control = new Control(['runtime_dir' => $runtimeDir]);
    }

    public function pushUnasked(int $fd, string $data, int $opcode = self::TEXT): bool
    {
        return false;
    }

    public function pushConfirmed(int $fd, string $data, int $opcode = self::TEXT): string
    {
        return $this->control->pushConfirmed($fd, $data, $opcode);
    }

    public function broadcast(string $data, int $opcode = self::TEXT, int $except = 0): bool
    {
        return $this->control->broadcast($data, $opcode, $except);
    }

    public function close(int $fd, int $code = 1000, string $reason = ''): void
    {
        $this->control->close($fd, $code, $reason);
    }

    public function exists(int $fd): bool
    {
        return $this->info($fd) !== null;
    }

    public function isWebSocket(int $fd): bool
    {
        return ($this->info($fd)['plain'] ?? true) === false;
    }

    /** As in the application: null also where nobody can tell. */
    public function info(int $fd): ?array
    {
        return $this->control->infoIfKnown($fd);
    }

    public function list(int $after = 0, int $count = 0): array
    {
        $fds = array_filter($this->control->fds(), fn (int $fd) => $fd > $after);
        sort($fds);
        return $count === 0 ? $fds : array_slice($fds, 0, $count);
    }

    public function stats(): array
    {
        return ['connections' => count($this->control->fds())];
    }

    public function send(int $worker, string $data, int $tag = 0, int $flags = 0): bool
    {
        trigger_error('Wsd\App::send(): not from the process that started the server', E_USER_WARNING);
        return false;
    }
}
