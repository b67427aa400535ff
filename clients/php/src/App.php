<?php

declare(strict_types=1);

namespace Wsd;

// Named here, PHP compiles calls of them without a look at the namespace at run time.
use function hrtime, pack, strlen;

/**
 * An application process: takes events from its worker and sends commands back.
 *
 *     $app = new Wsd\App();
 *     $app->on('message', fn (Wsd\App $app, int $fd, string $data, int $opcode) => $app->push($fd, $data));
 *     exit($app->run());
 *
 * Events and the arguments of their handlers, after the App itself:
 *  - start()                              once, before the first event
 *  - handshake(Request): Accept|Response|null   a Response keeps the client out, null lets it in
 *  - open(Request)                        the client is in
 *  - message(int $fd, string $data, int $opcode, int $flags)   Protocol::FLAG_COMPRESSED
 *  - control(int $fd, string $data, int $opcode)   a ping or pong of a client, and a ping is yours to answer
 *  - close(int $fd, Close $close)         rooms(), uid() and session() answer still what the client had
 *  - request(Request, Reply): ?Response   plain HTTP; a Response answers, the Reply answers in parts
 *                                         or later, neither is wsd's own 404
 *  - connect(Request)                     before the first request of a plain HTTP connection
 *  - disconnect(int $fd)                  such a connection has ended, or is to become a WebSocket
 *  - attach(Request)                      the client was opened in another process
 *  - pipe(int $from, int $tag, string $data)
 *  - note(int $from, int $tag, string $data)   what was sent past the events that wait
 *  - main()                               once, when the process is ready: it ends with the function,
 *                                         which handles events by serve()
 *  - presence(string $room, string $uid, bool $joined, mixed $info)   a user has come into a room that
 *                                         has presence, or left it; publishHere() tells its members
 *  - stop()                               once, after the last event
 */
class App
{
    use Rooms;

    public const TEXT = 1;
    public const BINARY = 2;
    /** A ping or pong of the application, at most 125 bytes. */
    public const PING = 9;
    public const PONG = 10;
    /** Rooms of one publish. Here and not in the trait, in which PHP 8.1 takes no constant. */
    public const ROOMS_MAX = 128;
    /** Bytes of the longest name of a room or a user that any configuration allows, with its sign. */
    private const TOPIC_BYTES_MAX = 1 + 255;

    /** An event that takes longer than this is no quick one. */
    private const QUICK_NS = 1_000_000;
    /** After so many quick events in a row, what they send is gathered for QUICK_NS. */
    private const QUICK_EVENTS = 32;
    /** More is not gathered: so much leaves in one piece, or not at all where the process dies. */
    private const GATHER_BYTES = 32 << 10;
    /**
     * So many quick events it takes to gather again after an event that was thought to be quick and was not;
     * after the next such event twice as many, up to the most, unless such an event was long in coming.
     */
    private const QUICK_AGAIN = 1_000;
    private const QUICK_AGAIN_MOST = 100_000;
    /** Freed when a script ends for want of memory, so that its end can be told. */
    private const RESERVED_BYTES = 65536;
    /** Errors after which PHP runs nothing more of a script. */
    private const FATAL = E_ERROR | E_PARSE | E_CORE_ERROR | E_COMPILE_ERROR | E_USER_ERROR | E_RECOVERABLE_ERROR;

    /** In the place of the bytes that may be pushed: a client that this process closed, and one that it hears on. */
    private const CLOSED = -1;
    private const HEARD = -2;

    private static ?App $running = null;
    private ?Channel $channel = null;
    /** @var array<string, callable> */
    private array $handlers = [];
    /** The handler of messages, which is looked for most. */
    private mixed $message = null;
    /** @var array<string, mixed> what HELLO said */
    private array $facts = [];
    /** @var array<int, int> clients of this process, and the bytes they may be pushed unasked */
    private array $mine = [];
    private int $free = 0;
    private int $most = PHP_INT_MAX;
    /** @var list<array<string, mixed>> events that came while an answer was waited for */
    private array $backlog = [];
    /** @var array<int, Reply> answers that are not ended */
    private array $replies = [];
    private int $asked = 0;
    /** The event at hand: its kind, 0 between two events, its id and its client. */
    private int $kind = 0;
    private int $id = 0;
    private int $fd = 0;
    /** The text that a client has sent and the event at hand tells: it is known to be UTF-8. */
    private ?string $text = null;
    /** @var array<string, mixed> the client whose end the event at hand tells, and what it had */
    private array $had = [];
    /** The client whose handshake is being decided. What is sent to it is carried out after the 101. */
    private int $deciding = 0;
    /** How many quick events came in a row. */
    private int $quick = 0;
    /** How many it takes after the next event that was thought to be quick, and the number of the last one. */
    private int $again = self::QUICK_AGAIN;
    private int $mistaken = 0;
    /** When the last event ended, if nothing was waited for since. */
    private int $clock = 0;
    /** When what events have sent leaves at the latest, looked at between two events. */
    private int $leaves = 0;
    /** The last event that is done while its DONE is not sent, and where that belongs in the write. */
    private int $undone = 0;
    private int $mark = 0;
    private bool $gathers = false;
    /** The kind of the last message or request: those of one kind are gathered. */
    private int $often = 0;
    /** How often this process had waited at the last look, and its processor time in nanoseconds. */
    private int $waits = 0;
    private int $spent = 0;
    private bool $ending = false;
    private bool $leaving = false;
    private bool $placed = false;
    private string $reserved = '';
    private int $handled = 0;
    public readonly Timers $timers;

    public function __construct()
    {
        $this->timers = new Timers();
    }

    /** Sets the handler of an event. */
    public function on(string $event, callable $handler): self
    {
        $names = ['start', 'handshake', 'open', 'message', 'control', 'close', 'request', 'attach', 'pipe', 'note',
            'presence', 'connect', 'disconnect', 'main', 'stop'];
        if (!in_array($event, $names, true)) {
            throw new \InvalidArgumentException("wsd has no event '$event', only " . implode(', ', $names));
        }
        $this->handlers[$event] = $handler;
        if ($event === 'message') {
            $this->message = $handler;
        }
        return $this;
    }

    /** Whether this process was started by wsd as an application process. */
    public static function isAppProcess(): bool
    {
        return getenv('WSD_APP_FD') !== false;
    }

    /**
     * Serves until wsd says to end.
     *
     * @return int 0 after a proper end, 1 when the worker was lost before it
     */
    public function run(?Channel $channel = null): int
    {
        Preamble::show();
        $this->channel = $channel ?? Channel::ofEnvironment()
            ?? throw new \RuntimeException('not started by wsd: WSD_APP_FD names no socket');
        self::$running = $this;
        if (!$this->hello()) {
            return 1;
        }
        $this->reserved = str_repeat("\0", self::RESERVED_BYTES);
        $self = getmypid();
        register_shutdown_function(fn () => getmypid() === $self && $this->cutShort());
        if (isset($this->handlers['main'])) {
            $this->guard(fn () => $this->call('main'));
            $this->ending = true;
        }
        // An answer lives until it is ended, so a process lives as long.
        while (!$this->ending || $this->replies !== []) {
            if ($this->next() === null && !$this->wait()) {
                break;
            }
        }
        $this->flush();
        $this->placed && $this->guard(fn () => $this->call('stop'));
        $this->leaving && Shared\File::leave();
        $this->end(0);
        return $this->ending ? 0 : 1;
    }

    /** What the worker said of itself at the start: see HELLO in docs/app-protocol.md. */
    public function fact(string $name): mixed
    {
        return $this->facts[$name] ?? null;
    }

    /** What runs in this process; null outside of a server. */
    public static function running(): ?self
    {
        return self::$running;
    }

    /** The client whose event is handled; null between two events. */
    public function handling(): ?int
    {
        return $this->kind === 0 ? null : $this->fd;
    }

    /** Whether a handler of an event runs. */
    public function isBusy(): bool
    {
        return $this->kind !== 0;
    }

    /** How many events this process handled. */
    public function handled(): int
    {
        return $this->handled;
    }

    /**
     * Queues a message for a client, wherever it is. A client of this process is not asked about
     * while there is room for it; for any other, and for one that reads slowly, the verdict is waited
     * for.
     *
     * @return bool whether it was queued, or relayed to the client's process; else with a warning
     */
    public function push(int $fd, string $data, int $opcode = self::TEXT): bool
    {
        if ($this->pushUnasked($fd, $data, $opcode)) {
            return true;
        }
        $verdict = $this->pushConfirmed($fd, $data, $opcode);
        return $verdict === 'queued' || $verdict === 'relayed' || $this->refused('push', $fd, $verdict);
    }

    /** Queues a message for a client of this process that there is room for; else does nothing. */
    public function pushUnasked(int $fd, string $data, int $opcode = self::TEXT): bool
    {
        $left = ($this->mine[$fd] ?? -1) - strlen($data);
        // What the worker would refuse is asked about, so that a push is true only for what is queued.
        $fits = $opcode === self::TEXT ? $this->isWhole($data, $opcode) : $opcode === self::BINARY;
        if ($left < 0 || !$fits) {
            return false;
        }
        $this->mine[$fd] = $left;
        // The head is told as one number: pack() takes time for each of its parts.
        $this->channel->output .= pack('Px4P', strlen($data) | Protocol::PUSH << 32 | $opcode << 48, $fd) . $data;
        if (!$this->gathers || strlen($this->channel->output) >= self::GATHER_BYTES) {
            $this->flush();
        }
        return true;
    }

    /** Pushes and waits for the verdict: one of Protocol::VERDICTS. */
    public function pushConfirmed(int $fd, string $data, int $opcode = self::TEXT): string
    {
        if (strlen($data) > $this->most) {
            return 'too_big';
        }
        if ($this->isDeciding($fd)) {
            // The verdict would come after the handshake, which waits for this handler.
            $whole = $this->isWhole($data, $opcode);
            $whole && $this->say(Protocol::frame(Protocol::PUSH, code: $opcode, fd: $fd, payload: $data));
            return $whole ? 'relayed' : 'invalid_text';
        }
        $answer = $this->ask(Protocol::PUSH, $fd, $opcode, $data, Protocol::FLAG_VERDICT);
        if (isset($this->mine[$fd]) && $answer['code'] === 0) {
            $this->mine[$fd] = min($this->free, $answer['fd'] ?? 0);
        }
        return Protocol::VERDICTS[$answer['code']] ?? 'unknown';
    }

    /** Sends a message to the members of a room that this worker has: what each worker says to its own. */
    public function publishHere(string $room, string $data, int $opcode = self::TEXT): void
    {
        $payload = pack('V', 1) . Protocol::string("#$room") . $data;
        $this->say(Protocol::frame(Protocol::PUBLISH, Protocol::FLAG_HERE, $opcode, 0, 0, $payload));
    }

    /** Leaves a client alone when the idle are closed (heartbeat_idle_time), or does so no more. */
    public function protect(int $fd, bool $on = true): void
    {
        $this->say(Protocol::frame(Protocol::PROTECT, code: (int) $on, fd: $fd));
    }

    /** As protect(), and waits for the verdict: one of Protocol::VERDICTS. */
    public function protectConfirmed(int $fd, bool $on = true): string
    {
        if ($this->isDeciding($fd)) {
            $this->protect($fd, $on);
            return 'relayed';
        }
        $answer = $this->ask(Protocol::PROTECT, $fd, (int) $on, '', Protocol::FLAG_VERDICT);
        return Protocol::VERDICTS[$answer['code']] ?? 'unknown';
    }

    /** Queues a message for every client of the server, except one where given. */
    public function broadcast(string $data, int $opcode = self::TEXT, int $except = 0): bool
    {
        if (strlen($data) > $this->most) {
            return $this->refused('broadcast', 0, 'too_big');
        }
        if (!$this->isWhole($data, $opcode)) {
            return $this->refused('broadcast', 0, 'invalid_text');
        }
        $this->say(Protocol::frame(Protocol::BROADCAST, 0, $opcode, 0, $except, $data));
        return true;
    }

    /** Closes a client's connection, after what was pushed to it. */
    public function close(int $fd, int $code = 1000, string $reason = ''): void
    {
        if (isset($this->mine[$fd])) {
            $this->mine[$fd] = self::CLOSED; // Nothing can be pushed any more, as the worker will say.
        }
        $this->say(Protocol::frame(Protocol::DISCONNECT, 0, $code, 0, $fd, $reason));
    }

    /** As close(), and waits for the verdict. */
    public function closeConfirmed(int $fd, int $code = 1000, string $reason = ''): string
    {
        if ($this->isDeciding($fd)) {
            $this->close($fd, $code, $reason);
            return 'relayed';
        }
        $answer = $this->ask(Protocol::DISCONNECT, $fd, $code, $reason, Protocol::FLAG_VERDICT);
        return Protocol::VERDICTS[$answer['code']] ?? 'unknown';
    }

    /** Whether the client is there, as a WebSocket or as a plain HTTP connection. */
    public function exists(int $fd): bool
    {
        return $this->isDeciding($fd) || $this->ask(Protocol::EXISTS, $fd)['code'] !== 0;
    }

    /** Whether the client is there as a WebSocket. */
    public function isWebSocket(int $fd): bool
    {
        return $this->ask(Protocol::EXISTS, $fd)['code'] === 1;
    }

    /** @return array<string, mixed>|null what is known of a client; null when it is gone */
    public function info(int $fd): ?array
    {
        $answer = $this->ask(Protocol::INFO, $fd);
        return $answer['code'] !== 0 ? json_decode($answer['payload'], true) : null;
    }

    /** @return list<int> clients of the whole server, greater than $after; $count 0 is all */
    public function list(int $after = 0, int $count = 0): array
    {
        $answer = $this->ask(Protocol::LIST, $after, min($count, 65535));
        return $answer['payload'] === '' ? [] : array_values(unpack('P*', $answer['payload']));
    }

    /** @return array<string, mixed> counts of the worker; 'connections' is of the whole server */
    public function stats(): array
    {
        return json_decode($this->ask(Protocol::STATS, 0)['payload'] ?: '[]', true);
    }

    /** Keeps up to 65,535 bytes that the client's next process is given in `attach`. */
    public function keep(int $fd, string $bytes): void
    {
        $this->say(Protocol::frame(Protocol::KEEP, fd: $fd, payload: $bytes));
    }

    /**
     * Sends bytes to the application of a worker, which gets them as `pipe`: in the process $tag
     * modulo the number of processes. During a reload a worker is two, and the bytes reach both.
     *
     * @param int $flags Protocol::TO_TASK: a process that does tasks; with TO_ANY: the one with the
     *     least to do. TO_USER: the one of number $tag that runs a function of its own. AS_NOTE: past the
     *     events that wait, to the handler `note`
     * @return bool false, with a warning, where they were not sent
     */
    public function send(int $worker, string $data, int $tag = 0, int $flags = 0): bool
    {
        if (strlen($data) > (int) ($this->facts['frame_max'] ?? PHP_INT_MAX)) {
            return $this->refused('send', $worker, 'too_big');
        }
        $answer = $this->ask(Protocol::SEND, $tag, $worker, $data, $flags | Protocol::FLAG_VERDICT);
        $verdict = Protocol::VERDICTS[$answer['code']] ?? 'unknown';
        return $verdict === 'queued' || $verdict === 'relayed' || $this->refused('send', $worker, $verdict);
    }

    /** Whether the client is served by this process, as far as this process knows. */
    public function owns(int $fd): bool
    {
        return isset($this->mine[$fd]);
    }

    /** Whether this process has closed the client, whose end is still to come. */
    public function isClosing(int $fd): bool
    {
        return ($this->mine[$fd] ?? 0) === self::CLOSED;
    }

    /** @internal tells on of what a client sends that this process has closed */
    public function hear(int $fd): void
    {
        if ($this->isClosing($fd)) {
            $this->mine[$fd] = self::HEARD;
        }
    }

    /** Whether this process is deciding about the client's handshake. */
    public function isDeciding(int $fd): bool
    {
        return $fd !== 0 && $fd === $this->deciding;
    }

    /**
     * Handles an event that has come, or waits for one, and for timers that are due.
     *
     * @param float|null $seconds how long it waits at most; null has no end
     * @return bool false once wsd has said to end, or is gone
     */
    public function serve(?float $seconds = null): bool
    {
        if ($this->next() === null) {
            $this->ending = !$this->wait($seconds) || $this->ending;
        }
        $this->flush(); // What follows may take long.
        return !$this->ending;
    }

    /** Sends what is queued now, and not at the end of the event. */
    public function flush(): void
    {
        $gathered = $this->gathers;
        $this->gathers = false;
        if ($this->undone !== 0) {
            // Behind all that the gathered events sent, and before what the event at hand has sent.
            $done = pack('VCCvVP', 0, Protocol::DONE, Protocol::FLAG_ALL, 0, $this->undone, 0);
            $this->channel->insert($this->mark, $done);
            $this->undone = 0;
        }
        if ($this->channel !== null && $this->channel->output !== '') {
            $this->channel->flush();
        }
        // Where the worker reads slowly the write waits, which says nothing about the handler at hand.
        $gathered && $this->kind !== 0 && $this->worked();
    }

    /** Ends run() after the event at hand. wsd starts a new process in this one's place. */
    public function stop(): void
    {
        $this->ending = true;
        $this->flush(); // Ends the gathering, and with it the loop over messages.
    }

    private function hello(): bool
    {
        while (($hello = $this->channel->next()) === null) {
            if (!$this->channel->read()) {
                return false;
            }
        }
        $this->facts = json_decode($hello['payload'], true) ?: [];
        // Before READY, so that a reload refuses a script whose tables are of another shape.
        Shared\File::share((int) ($this->facts['master_pid'] ?? 0));
        $this->timers->restart();
        $this->free = (int) ($this->facts['push_free'] ?? 0);
        $this->most = (int) ($this->facts['push_max'] ?? PHP_INT_MAX);
        // One that stands by is told when it has a place.
        empty($this->facts['spare']) && $this->placed();
        // CLOSE is wanted always: it keeps the list of this process's clients true.
        $wants = Protocol::IN_ORDER | Protocol::WANT_CLOSE;
        $kinds = [
            'handshake' => Protocol::WANT_HANDSHAKE | Protocol::WANT_OPEN,
            'open' => Protocol::WANT_OPEN,
            'message' => Protocol::WANT_MESSAGE,
            'request' => Protocol::WANT_REQUEST,
            'attach' => Protocol::WANT_ATTACH,
            'control' => Protocol::WANT_CONTROL,
        ];
        foreach ($kinds as $name => $bits) {
            $wants |= isset($this->handlers[$name]) ? $bits : 0;
        }
        $more = isset($this->handlers['presence']) ? Protocol::WANT_PRESENCE : 0;
        $more |= isset($this->handlers['disconnect']) ? Protocol::WANT_PLAIN : 0;
        $more |= isset($this->handlers['close']) ? Protocol::WANT_HAD : 0;
        $more |= isset($this->handlers['request']) ? Protocol::GATHERS : 0;
        $this->channel->write(Protocol::frame(Protocol::READY, $wants, Protocol::VERSION, fd: $more));
        $this->channel->flush();
        return true;
    }

    /** Handles what is here already; null where there is nothing. */
    private function next(): ?bool
    {
        if ($this->backlog === [] && $this->often()) {
            return true;
        }
        $event = $this->backlog === [] ? $this->channel->next() : array_shift($this->backlog);
        if ($event === null) {
            return null;
        }
        if ($event['kind'] >= Protocol::VERDICT) {
            $this->flush();
            $this->told($event);
            return true;
        }
        $begun = $this->clock ?: hrtime(true);
        $this->begin($begun, false);
        [$this->kind, $this->id, $this->fd] = [$event['kind'], $event['id'], $event['fd']];
        $this->dispatch($event);
        $this->finish($event['id'], $begun, false);
        return true;
    }

    /**
     * Handles the messages and requests that are next: all of them while what they send is gathered, else one.
     * False where there is none. What costs a message here costs each of a million, so little is called for one.
     */
    private function often(): bool
    {
        for ($any = false; ($event = $this->channel->take(true)) !== null; $any = true) {
            $begun = $this->clock ?: hrtime(true);
            $head = $event['h'];
            $kind = $head >> 32 & 0xff;
            if (!$this->gathers || $kind !== $this->often || $begun >= $this->leaves || $begun >= $this->timers->due) {
                // Only where the worker says so may a request be done before its DONE is sent.
                $may = $kind === Protocol::MESSAGE || ($head >> 40 & Protocol::FLAG_TOGETHER) !== 0;
                $this->begin($begun, $may && $this->channel->has());
                $this->often = $kind;
            }
            $gathers = $this->gathers;
            $this->kind = $kind;
            $this->id = $id = $event['i'];
            $this->fd = $event['f'];
            $ends = false;
            if ($kind === Protocol::MESSAGE) {
                $this->heard($event['f'], $head >> 48 & 0xffff, $head >> 40 & 0xff, $event['p']);
            } else {
                $this->requested($event['f'], $id, $head >> 40 & 0xff, $event['p']);
                $ends = ($head >> 40 & Protocol::FLAG_TOGETHER) === 0 || isset($this->replies[$id]);
            }
            $event = null; // It may be long, and so may the next one.
            if ($ends || !$this->gathers) {
                // The process may end now, and what waits in the backlog comes before the next message.
                $this->finish($id, $begun, $gathers);
                return true;
            }
            $this->kind = 0;
            $this->handled++;
            $this->undone = $id;
            $this->mark = strlen($this->channel->output);
            $this->clock = hrtime(true);
            if ($this->clock - $begun >= self::QUICK_NS) {
                $this->lasted(true);
            }
        }
        return $any;
    }

    /** A client of this process has sent a message, a ping or a pong. */
    private function heard(int $fd, int $opcode, int $flags, string $data): void
    {
        // What a client has sent is not told any more once this process has closed it.
        if (($this->mine[$fd] ??= $this->free) === self::CLOSED) {
            return;
        }
        $handler = $opcode > self::BINARY ? $this->handlers['control'] : $this->message;
        $this->text = $opcode === self::TEXT ? $data : null;
        try {
            $handler($this, $fd, $data, $opcode, $flags);
        } catch (\Throwable $error) {
            $this->failed($error, $fd);
        }
        $this->text = null;
    }

    /**
     * Before an event: what was sent leaves, and timers that are due run.
     *
     * A handler may do anything after a command, so a command leaves at once. Only where messages or requests
     * came together, while all were quick, their commands are gathered for a moment.
     */
    private function begin(int $now, bool $together): void
    {
        $looks = $this->undone !== 0; // The write may wait for the worker, which says nothing of a handler.
        $this->flush();
        if ($now >= $this->timers->due) {
            $this->tick();
            $this->flush();
        }
        // A timer, or a function that a signal called, may have stopped the process.
        $together = $together && $this->backlog === [] && !$this->ending;
        $this->gathers = $together && $this->quick >= self::QUICK_EVENTS;
        if ($this->gathers && ($looks || $now >= $this->leaves)) {
            $this->worked();
            $this->leaves = $now + self::QUICK_NS;
        }
    }

    /** After an event whose commands are not gathered, or not any more. */
    private function finish(int $id, int $begun, bool $gathered): void
    {
        $this->kind = 0;
        $this->done($id);
        hrtime(true) - $begun < self::QUICK_NS ? $this->quick++ : $this->lasted($gathered);
        $this->flush();
        $this->clock = 0; // The time of the write is not the next event's.
    }

    /** An event took longer than a quick one. */
    private function lasted(bool $gathered): void
    {
        if (!$gathered) {
            $this->quick = min($this->quick, 0);
        } elseif ($this->worked()) {
            // A machine that stands still for a moment looks like a handler that works: so a rare one costs
            // little, and a handler that is slow now and then seldom keeps the commands of others.
            if ($this->handled - $this->mistaken >= 2 * self::QUICK_AGAIN_MOST) {
                $this->again = self::QUICK_AGAIN;
            }
            $this->quick = -$this->again;
            $this->again = min(2 * $this->again, self::QUICK_AGAIN_MOST);
            $this->mistaken = $this->handled;
            $this->flush();
        }
    }

    /**
     * Whether this process waited or worked for long since the last look. An event that lasts because
     * other processes have the processor says nothing about its handler.
     */
    private function worked(): bool
    {
        $usage = getrusage();
        $waits = $usage['ru_nvcsw'];
        $ns = 1_000_000_000 * ($usage['ru_utime.tv_sec'] + $usage['ru_stime.tv_sec'])
            + 1000 * ($usage['ru_utime.tv_usec'] + $usage['ru_stime.tv_usec']);
        // Quick events before this one may have taken QUICK_NS of it.
        $worked = $waits !== $this->waits || $ns - $this->spent >= 2 * self::QUICK_NS;
        [$this->waits, $this->spent] = [$waits, $ns];
        return $worked;
    }

    private function dispatch(array $event): void
    {
        switch ($event['kind']) {
            case Protocol::MESSAGE:
                $this->heard($event['fd'], $event['code'], $event['flags'], $event['payload']);
                break;
            case Protocol::OPEN:
                $this->opened($event);
                break;
            case Protocol::CLOSE:
                $this->closed($event);
                break;
            case Protocol::REQUEST:
                $this->requested($event['fd'], $event['id'], $event['flags'], $event['payload']);
                break;
            case Protocol::ATTACH:
                $this->mine[$event['fd']] = $this->free;
                $request = Protocol::request($event['fd'], $event['payload']);
                $this->guard(fn () => $this->call('attach', $request), $event['fd']);
                break;
            case Protocol::PIPE:
                $this->guard(fn () => $this->call('pipe', $event['code'], $event['fd'], $event['payload']));
                break;
            case Protocol::PRESENCE:
                $at = 0;
                $room = Protocol::readString($event['payload'], $at);
                $uid = Protocol::readString($event['payload'], $at);
                $info = json_decode(substr($event['payload'], $at), true);
                $this->guard(fn () => $this->call('presence', $room, $uid, $event['code'] === 1, $info));
                break;
            case Protocol::SHUTDOWN:
                $this->ending = true;
                $this->leaving = $event['code'] === Protocol::WORKER_LEAVES;
                break;
        }
    }

    private function opened(array $event): void
    {
        $request = Protocol::request($event['fd'], $event['payload']);
        if (($event['flags'] & Protocol::FLAG_ANSWER) !== 0) {
            $verdict = new Response(500);
            $this->deciding = $event['fd'];
            $this->guard(function () use (&$verdict, $request) {
                $verdict = $this->call('handshake', $request) ?? new Accept();
            });
            $this->deciding = 0;
            if (!$verdict instanceof Accept) {
                $payload = Protocol::fields($verdict->fields) . $verdict->body;
                $this->answer(Protocol::REFUSE, $event, $verdict->status, $payload);
                return;
            }
            $payload = Protocol::string($verdict->subprotocol) . Protocol::fields($verdict->fields);
            $this->answer(Protocol::ACCEPT, $event, 0, $payload);
        }
        $this->mine[$event['fd']] = $this->free;
        $this->guard(fn () => $this->call('open', $request), $event['fd']);
    }

    private function closed(array $event): void
    {
        if (($event['flags'] & Protocol::FLAG_PLAIN) !== 0) {
            $this->guard(fn () => $this->call('disconnect', $event['fd']));
            return;
        }
        $known = isset($this->mine[$event['fd']]);
        unset($this->mine[$event['fd']]);
        if (!isset($this->handlers['close'])) {
            return;
        }
        $at = 0;
        $cause = Protocol::readString($event['payload'], $at);
        $has = ($event['flags'] & Protocol::FLAG_HAD) !== 0;
        $had = $has ? json_decode(Protocol::readString($event['payload'], $at), true) : [];
        $by = ['nobody', 'client', 'server'][$event['flags'] & 3] ?? 'nobody';
        $close = new Close($event['code'], substr($event['payload'], $at), $by, $cause);
        $this->had = ['fd' => $event['fd']] + $had;
        $this->guard(fn () => $this->call('close', $event['fd'], $close));
        $this->had = [];
    }

    private function requested(int $fd, int $id, int $flags, string $payload): void
    {
        $reply = $this->replies[$id] = new Reply($this, $id);
        $isHeld = ($flags & Protocol::FLAG_HELD) !== 0;
        $held = $isHeld ? fn (int $length) => new HeldBody($this, $id, $length) : null;
        try {
            $request = Protocol::request($fd, $payload, $held);
            if (($flags & Protocol::FLAG_FIRST) !== 0) {
                $this->guard(fn () => $this->call('connect', $request));
            }
            $response = ($this->handlers['request'])($this, $request, $reply);
            if ($response !== null) {
                $reply->send($response);
            } elseif (isset($this->replies[$id]) && !$reply->isKept()) {
                $reply->pass();
            }
        } catch (\Throwable $error) {
            $this->failed($error, 0);
            $reply->fail();
        }
    }

    /** @internal sends an answer that is one frame, and ends it */
    public function replyWhole(int $id, int $status, string $payload): void
    {
        unset($this->replies[$id]);
        // As say() of a frame.
        $head = strlen($payload) | Protocol::RESPONSE << 32 | $status << 48;
        $this->channel->output .= pack('PVP', $head, $id, 0) . $payload;
        if (!$this->gathers || strlen($this->channel->output) >= self::GATHER_BYTES) {
            $this->flush();
        }
    }

    /** @internal sends a frame of an answer */
    public function reply(Reply $reply, int $kind, int $flags, int $code, string $payload): void
    {
        $this->say(Protocol::frame($kind, $flags, $code, $reply->id(), 0, $payload));
        // Of an answer in parts each leaves at once, whatever else is gathered.
        ($flags & Protocol::FLAG_MORE) === 0 || $this->flush();
    }

    /**
     * @internal sends an answer whose body is a file that is open
     *
     * @param resource $file
     */
    public function replyFile(Reply $reply, int $status, string $payload, $file): bool
    {
        $frame = Protocol::frame(Protocol::RESPONSE, Protocol::FLAG_FILE, $status, $reply->id(), 0, $payload);
        $this->flush();
        return $this->channel->sendWith($frame, $file);
    }

    /** @internal a part of the body that the worker holds for a request; empty where it does no more */
    public function readHeld(int $id, int $offset): string
    {
        return $this->ask(Protocol::READ, $offset, 0, pack('V', $id))['payload'];
    }

    /** @internal an answer is ended */
    public function replied(Reply $reply): void
    {
        unset($this->replies[$reply->id()]);
    }

    /** @internal waits for what the worker says; events that come meanwhile are kept. False when it is gone. */
    public function await(?float $seconds = null): bool
    {
        $this->flush();
        $frame = $this->channel->next();
        if ($frame === null) {
            return $this->channel->read($seconds);
        }
        if ($frame['kind'] < Protocol::VERDICT) {
            $this->backlog[] = $frame;
        } else {
            $this->told($frame);
        }
        return true;
    }

    /** Something that is no event, and that nobody waits for. */
    private function told(array $frame): void
    {
        if ($frame['kind'] === Protocol::TAKEN) {
            ($this->replies[$frame['id']] ?? null)?->taken($frame['fd'], $frame['code'] !== 0);
        } elseif ($frame['kind'] === Protocol::PLACE) {
            $this->facts = json_decode($frame['payload'], true) + $this->facts;
            $this->placed();
        } elseif ($frame['kind'] === Protocol::NOTE) {
            $this->guard(fn () => $this->call('note', $frame['code'], $frame['fd'], $frame['payload']));
        }
    }

    private function answer(int $kind, array $event, int $code, string $payload): void
    {
        $this->say(Protocol::frame($kind, 0, $code, $event['id'], $event['fd'], $payload));
    }

    private function call(string $event, mixed ...$arguments): mixed
    {
        $handler = $this->handlers[$event] ?? null;
        return $handler === null ? null : $handler($this, ...$arguments);
    }

    /** An exception costs the connection it happened on (1011), not the process. */
    private function guard(callable $call, int $fd = 0): void
    {
        try {
            $call();
        } catch (\Throwable $error) {
            $this->failed($error, $fd);
        }
    }

    private function placed(): void
    {
        // What throws here ends the process, so that a start fails and a reload is refused.
        $this->call('start');
        $this->placed = true;
    }

    /** Whether text is UTF-8. Any other is sent to nobody, of which nobody tells who asks for no verdict. */
    private function isWhole(string $data, int $opcode): bool
    {
        return $opcode !== self::TEXT || $data === $this->text || preg_match('//u', $data) === 1;
    }

    private function refused(string $what, int $to, string $verdict): bool
    {
        if ($verdict !== 'gone') {
            $whom = $to === 0 ? 'refused' : "refused for $to";
            trigger_error("Wsd\\App::$what(): $whom: $verdict", E_USER_WARNING);
        }
        return false;
    }

    private function failed(\Throwable $error, int $fd): void
    {
        $hint = SwooleNames::hint($error->getMessage());
        file_put_contents('php://stderr', "Uncaught $error\n" . ($hint === null ? '' : "wsd: $hint\n"));
        if ($fd !== 0) {
            $this->close($fd, 1011, 'the handler failed');
        }
    }

    /** Says that an event is done, behind all that it sent. */
    private function done(int $id): void
    {
        if ($id !== 0) {
            $this->handled++;
            $flags = isset($this->replies[$id]) ? Protocol::FLAG_LATER : 0;
            $this->channel->write(pack('VCCvVP', 0, Protocol::DONE, $flags, 0, $id, 0));
        }
    }

    /** Sends a command now, or with those of other quick events. */
    private function say(string $frame): void
    {
        $this->channel->output .= $frame;
        if (!$this->gathers || strlen($this->channel->output) >= self::GATHER_BYTES) {
            $this->flush();
        }
    }

    /** Says that this process ends and begins no further event. */
    private function end(int $code, int $flags = 0): void
    {
        $this->flush();
        $this->channel->write(Protocol::frame(Protocol::END, $flags, $code));
        $this->channel->flush();
        $this->channel->close();
    }

    /** The script ended within a handler: by exit, dd() or a fatal error, or for want of memory. */
    private function cutShort(): void
    {
        $this->reserved = '';
        if ($this->channel->closed()) {
            return;
        }
        array_map(fn (Reply $reply) => $reply->fail(), $this->replies);
        $last = error_get_last();
        $fatal = (($last['type'] ?? 0) & self::FATAL) !== 0;
        if ($this->kind !== 0) {
            $of = [Protocol::OPEN, Protocol::MESSAGE, Protocol::ATTACH];
            if ($fatal && in_array($this->kind, $of, true)) {
                $this->close($this->fd, 1011, 'the handler failed');
            }
            $this->done($this->id);
        }
        // An error of a timer or in a handler says nothing about the event that is next.
        $untaken = $fatal && $this->kind === 0 && $last['file'] === __DIR__ . '/Channel.php';
        $this->end($fatal ? 1 : 0, $untaken ? Protocol::FLAG_UNTAKEN : 0);
    }

    /** Waits for the next event or timer. False when the worker is gone. */
    private function wait(?float $seconds = null): bool
    {
        $this->flush();
        [$this->clock, $this->leaves] = [0, 0];
        $due = $this->timers->wait();
        $alive = $this->channel->read($due === null ? $seconds : min($due, $seconds ?? $due));
        $this->timers->due === PHP_INT_MAX || $this->tick();
        return $alive;
    }

    private function tick(): void
    {
        $this->timers->run(fn (callable $call) => $this->guard($call));
    }

    /** Sends a question and waits for its answer; events that come meanwhile are kept. */
    private function ask(int $kind, int $fd, int $code = 0, string $payload = '', int $flags = 0): array
    {
        $id = $this->asked = $this->asked % 0xffffffff + 1;
        $this->channel->write(Protocol::frame($kind, $flags, $code, $id, $fd, $payload));
        $this->flush();
        while (true) {
            $frame = $this->channel->next();
            if ($frame === null) {
                if (!$this->channel->read()) {
                    $this->ending = true;
                    return ['code' => 0, 'payload' => ''];
                }
            } elseif ($frame['kind'] < Protocol::VERDICT) {
                $this->backlog[] = $frame;
            } elseif (!in_array($frame['kind'], Protocol::TOLD, true) && $frame['id'] === $id) {
                return $frame;
            } else {
                $this->told($frame);
            }
        }
    }
}
