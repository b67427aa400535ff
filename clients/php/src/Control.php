<?php

declare(strict_types=1);

namespace Wsd;

/**
 * Reaches a running server from any other PHP program, over its control socket (docs/ipc.md).
 *
 * Each call is a connection of its own, so a queue worker that lives for weeks holds none. What
 * cannot be asked at all, since no server runs or this user may not, is a RuntimeException.
 */
final class Control
{
    /** A worker answers within 5 s, or the manager answers for it. */
    private const SECONDS = 10.0;
    private const RELOAD_SECONDS = 600.0;

    /** @param array<string, string> $settings what finds the server: runtime_dir, pid_file */
    public function __construct(private array $settings = [])
    {
    }

    /** Queues a message for a client. False when that client is gone, or reads too slowly. */
    public function push(int $fd, string $data, int $opcode = App::TEXT): bool
    {
        return $this->pushConfirmed($fd, $data, $opcode) === 'queued';
    }

    /** Pushes and gives the verdict: queued, gone, full, too_big or unknown. */
    public function pushConfirmed(int $fd, string $data, int $opcode = App::TEXT): string
    {
        $request = ['cmd' => 'push', 'fd' => $fd] + self::body($data, $opcode);
        return $this->done($request, $data)['verdict'];
    }

    /** Queues a message for every client of the server, except one where given. */
    public function broadcast(string $data, int $opcode = App::TEXT, int $except = 0): bool
    {
        $but = $except === 0 ? [] : ['except' => $except];
        return $this->done(['cmd' => 'broadcast'] + self::body($data, $opcode) + $but, $data)['ok'];
    }

    /** Closes a client's connection. False when it is gone already. */
    public function close(int $fd, int $code = 1000, string $reason = ''): bool
    {
        $request = ['cmd' => 'close', 'fd' => $fd, 'code' => $code, 'reason' => $reason];
        return $this->done($request)['ok'];
    }

    /**
     * Puts a client into a room; true when every publish finds the member. $info is what presence shows
     * of it there.
     */
    public function join(int $fd, string $room, mixed $info = null): bool
    {
        $shows = $info === null ? [] : ['info' => $info];
        return $this->done(['cmd' => 'join', 'fd' => $fd, 'room' => $room] + $shows)['ok'];
    }

    public function leave(int $fd, string $room): bool
    {
        return $this->done(['cmd' => 'leave', 'fd' => $fd, 'room' => $room])['ok'];
    }

    /** Makes a connection a user's. */
    public function bind(int $fd, string|int $uid): bool
    {
        if ($uid === '') {
            throw new \RuntimeException('wsd: a uid has at least one byte');
        }
        return $this->done(['cmd' => 'bind', 'fd' => $fd, 'uid' => (string) $uid])['ok'];
    }

    /** Makes a connection nobody's. */
    public function unbind(int $fd): bool
    {
        return $this->done(['cmd' => 'bind', 'fd' => $fd])['ok'];
    }

    /**
     * Sends a message to the members of a room, or of several: who is in more than one gets it once.
     *
     * @param string|list<string> $room
     */
    public function publish(string|array $room, string $data, int $opcode = App::TEXT, int $except = 0): bool
    {
        return $this->publishConfirmed($room, $data, $opcode, $except)['ok'];
    }

    /**
     * As publish.
     *
     * @param string|list<string> $room
     * @return array<string, mixed> what became of it: queued, full, workers, answered, refused
     */
    public function publishConfirmed(
        string|array $room,
        string $data,
        int $opcode = App::TEXT,
        int $except = 0,
    ): array {
        return $this->tally(['room' => $room], $data, $opcode, $except);
    }

    /** Sends a message to every connection of a user. False when the user has none. */
    public function pushUid(string|int $uid, string $data, int $opcode = App::TEXT): bool
    {
        return $this->tally(['uid' => (string) $uid], $data, $opcode, 0)['ok'];
    }

    /** Closes every connection of a user. False when the user has none, or nobody knows of some. */
    public function closeUid(string|int $uid, int $code = 1000, string $reason = ''): bool
    {
        $request = ['cmd' => 'close_user', 'uid' => (string) $uid, 'code' => $code, 'reason' => $reason];
        return $this->done($request)['ok'];
    }

    /** @return list<array{fd: int, uid: ?string}> the members of a room */
    public function members(string $room): array
    {
        return $this->list(['cmd' => 'members', 'room' => $room]);
    }

    /** @return list<array{fd: int, uid: ?string}> the connections of a user */
    public function connectionsOf(string|int $uid): array
    {
        return $this->list(['cmd' => 'members', 'uid' => (string) $uid]);
    }

    /** @return list<array{room: string, members: int}> the rooms that have members */
    public function rooms(): array
    {
        return $this->list(['cmd' => 'rooms']);
    }

    /** What is kept with a client's connection; null where nothing is. */
    public function session(int $fd): mixed
    {
        $json = $this->info($fd)['session'] ?? null;
        return $json === null ? null : json_decode($json, true);
    }

    /** Keeps a value, as JSON, with a client's connection. */
    public function setSession(int $fd, mixed $value): bool
    {
        $json = $value === null ? '' : json_encode($value, JSON_THROW_ON_ERROR);
        return $this->done(['cmd' => 'session', 'fd' => $fd, 'bytes' => strlen($json)], $json)['ok'];
    }

    /**
     * Where nobody can tell, since a worker hangs or a node is cut off, that is an exception.
     *
     * @return array<string, mixed>|null what is known of a client; null when it is gone
     */
    public function info(int $fd): ?array
    {
        $answer = $this->done(['cmd' => 'info', 'fd' => $fd]);
        if (($answer['verdict'] ?? 'gone') !== 'gone') {
            throw new \RuntimeException('wsd: ' . ($answer['error'] ?? 'nobody can tell'));
        }
        return self::known($answer);
    }

    /** @return array<string, mixed>|null as info(), but null also where nobody can tell */
    public function infoIfKnown(int $fd): ?array
    {
        return self::known($this->ask(['cmd' => 'info', 'fd' => $fd]));
    }

    private static function known(array $answer): ?array
    {
        unset($answer['ok']);
        return isset($answer['fd']) ? $answer : null;
    }

    /** @return list<array<string, mixed>> every open connection: fd, worker, peer, … */
    public function connections(): array
    {
        return $this->list(['cmd' => 'connections']);
    }

    /** @return list<int> the fd of every open connection; a worker that hangs keeps none from it */
    public function fds(): array
    {
        $fds = [];
        $this->done(['cmd' => 'connections'], '', function (array $item) use (&$fds): void {
            $fds[] = $item['fd'];
        });
        return $fds;
    }

    /** @return array<string, mixed> the object of `wsd status --json` */
    public function status(): array
    {
        return $this->done(['cmd' => 'status']);
    }

    /** @return array<string, mixed> the verdict, when the new code serves; `ok` says whether it does */
    public function reload(): array
    {
        return $this->ask(['cmd' => 'reload'], '', null, self::RELOAD_SECONDS);
    }

    /**
     * Asks one thing: docs/ipc.md has the requests and their answers.
     *
     * @param array<string, mixed> $request
     * @param callable(array<string, mixed>): void|null $each takes the objects of a list
     * @return array<string, mixed> the answer, with `ok`
     */
    public function ask(
        array $request,
        string $body = '',
        ?callable $each = null,
        float $seconds = self::SECONDS,
    ): array {
        $socket = $this->connect($seconds);
        self::write($socket, json_encode($request, JSON_THROW_ON_ERROR) . "\n" . $body);
        while (($line = fgets($socket)) !== false) {
            $answer = json_decode($line, true, 512, JSON_THROW_ON_ERROR);
            if (isset($answer['ok'])) {
                return $answer;
            }
            $each === null || $each($answer);
        }
        throw new \RuntimeException(stream_get_meta_data($socket)['timed_out']
            ? 'wsd did not answer in time; the request may have been done or not'
            : 'wsd ended the connection before an answer; the request may have been done or not');
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

    /** Where wsd has its control socket unless told: see runtime_dir in etc/wsd.toml. */
    public static function directory(): string
    {
        $uid = RuntimeDir::me();
        $user = getenv('XDG_RUNTIME_DIR');
        return match (true) {
            ($named = getenv('WSD_RUNTIME_DIR')) !== false && $named !== '' => $named,
            $uid === 0 => '/run/wsd',
            $user !== false && $user !== '' => "$user/wsd",
            default => (getenv('TMPDIR') ?: '/tmp') . "/wsd-$uid",
        };
    }

    /** @return resource */
    private function connect(float $seconds)
    {
        $directory = RuntimeDir::check($this->settings['runtime_dir'] ?? self::directory());
        $path = "$directory/" . RuntimeDir::SOCKET;
        $socket = @stream_socket_client("unix://$path", $code, $why, self::SECONDS);
        if ($socket === false) {
            throw new \RuntimeException("wsd does not run, or may not be asked: $path: $why");
        }
        RuntimeDir::checkPeer($socket, $directory);
        stream_set_timeout($socket, (int) $seconds);
        return $socket;
    }

    /** @param resource $socket */
    private static function write($socket, string $bytes): void
    {
        while ($bytes !== '') {
            $sent = @fwrite($socket, $bytes);
            if ($sent === false || $sent === 0) {
                return; // It refuses, and the answer says why.
            }
            $bytes = substr($bytes, $sent);
        }
    }

    /** @return array<string, mixed> */
    private static function body(string $data, int $opcode): array
    {
        return ['opcode' => $opcode === App::BINARY ? 'binary' : 'text', 'bytes' => strlen($data)];
    }

    /** As ask(); throws what was refused without a verdict, such as text that is not UTF-8. */
    private function done(array $request, string $body = '', ?callable $each = null): array
    {
        $answer = $this->ask($request, $body, $each);
        if (!$answer['ok'] && !isset($answer['verdict'])) {
            throw new \RuntimeException('wsd: ' . ($answer['error'] ?? 'refused without a reason'));
        }
        return $answer;
    }

    /** @param array<string, string|list<string>> $to */
    private function tally(array $to, string $data, int $opcode, int $except): array
    {
        $but = $except === 0 ? [] : ['except' => $except];
        $answer = $this->done(['cmd' => 'publish'] + $to + self::body($data, $opcode) + $but, $data);
        // What nobody was asked for, such as a name that is too long, was queued for nobody.
        return $answer + ['queued' => 0, 'full' => 0, 'workers' => 0, 'answered' => 0, 'refused' => 0];
    }

    /**
     * A list of which some may be missing is an exception.
     *
     * @return list<array<string, mixed>>
     */
    private function list(array $request): array
    {
        $items = [];
        $answer = $this->ask($request, '', function (array $item) use (&$items): void {
            $items[] = $item;
        });
        if (!$answer['ok']) {
            throw new \RuntimeException('wsd: ' . ($answer['error'] ?? 'refused without a reason'));
        }
        return $items;
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
