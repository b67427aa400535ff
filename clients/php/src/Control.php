<?php

declare(strict_types=1);

namespace Wsd;

/** Reaches a running server from any other PHP program, through the `wsd` command. */
final class Control
{
    /** @param array<string, string> $settings what finds the server: runtime_dir, pid_file */
    public function __construct(private array $settings = [])
    {
    }

    /** Queues a text message for a client. False when that client is gone or its queue full. */
    public function push(int $fd, string $text): bool
    {
        return $this->run(['push', (string) $fd, '--', $text])[0] === 0;
    }

    public function broadcast(string $text): bool
    {
        return $this->run(['broadcast', '--', $text])[0] === 0;
    }

    public function close(int $fd, int $code = 1000, string $reason = ''): bool
    {
        $because = $reason === '' ? [] : ['--reason', $reason];
        return $this->run(['close', (string) $fd, '--code', (string) $code, ...$because])[0] === 0;
    }

    /** @return list<array<string, mixed>> every open connection: fd, worker, peer, … */
    public function connections(): array
    {
        [$code, $output] = $this->run(['connections', '--json']);
        return $code === 0 ? json_decode($output, true, 512, JSON_THROW_ON_ERROR) : [];
    }

    /** @return array<string, mixed> */
    public function status(): array
    {
        [$code, $output] = $this->run(['status', '--json']);
        return $code === 0 ? json_decode($output, true, 512, JSON_THROW_ON_ERROR) : [];
    }

    /**
     * Runs a command of wsd.
     *
     * @param list<string> $words
     * @return array{0: int, 1: string} exit code and output
     */
    public function run(array $words, bool $quiet = true): array
    {
        $command = [Launcher::binary(), array_shift($words), ...$this->options(), ...$words];
        $error = $quiet ? ['file', '/dev/null', 'w'] : STDERR;
        $process = proc_open($command, [['file', '/dev/null', 'r'], ['pipe', 'w'], $error], $pipes);
        if ($process === false) {
            throw new \RuntimeException("{$command[0]} cannot be run");
        }
        $output = stream_get_contents($pipes[1]);
        return [proc_close($process), (string) $output];
    }

    /** @return list<string> */
    private function options(): array
    {
        $options = [];
        foreach ($this->settings as $key => $value) {
            array_push($options, '--set', "$key=$value");
        }
        return $options;
    }
}
