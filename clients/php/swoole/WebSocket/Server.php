<?php

declare(strict_types=1);

namespace Swoole\WebSocket;

use Swoole\Http\Request;
use Swoole\Http\Response;
use Wsd\Accept;
use Wsd\App;
use Wsd\Close;
use Wsd\Protocol;
use Wsd\SwooleErrors;

// Named here, PHP compiles calls of them without a look at the namespace at run time.
use function is_string, strlen;

/** WebSocket, and plain HTTP on the same port where there is onRequest. */
class Server extends \Swoole\Http\Server
{
    protected const EVENTS = [...parent::EVENTS, 'disconnect'];
    protected const SILENT = ['workererror', 'workerexit', 'bufferfull', 'bufferempty', 'receive', 'packet'];
    /** How long a push waits for a client with send_yield, and how often it looks. */
    private const YIELD_SECONDS = 5.0;
    private const YIELD_STEP_SECONDS = 0.005;
    private const NO_CODE = 1005;
    /** Header fields of a 101 that wsd writes itself. */
    private const OF_THE_101 = ['upgrade', 'connection', 'sec-websocket-accept', 'sec-websocket-version',
        'sec-websocket-extensions', 'sec-websocket-protocol', 'server', 'content-length', 'date'];

    /** @var array<int, string> since when, from where and as whom clients are here, for the callbacks of their end */
    private array $met = [];
    private ?bool $remembers = null;
    /** @var array<int, string> unfinished messages that are pushed in pieces */
    private array $pieces = [];
    /** @var array<int, true> clients that disconnect() has ended, where onDisconnect is to hear of that */
    private array $parting = [];

    /**
     * Queues a message. True means queued, not delivered; false, with a warning, that it is not.
     *
     * @param Frame|string|int|float|bool|null $data
     */
    public function push(
        int $fd,
        $data,
        int $opcode = WEBSOCKET_OPCODE_TEXT,
        $flags = WEBSOCKET_FLAG_FIN,
    ): bool {
        $plain = $opcode === WEBSOCKET_OPCODE_TEXT || $opcode === WEBSOCKET_OPCODE_BINARY;
        if ($plain && $flags === WEBSOCKET_FLAG_FIN && is_string($data)) {
            return $this->app->pushUnasked($fd, $data, $opcode) || $this->confirmed($fd, $data, $opcode);
        }
        $parts = Frame::parts($data, $opcode, (int) ($flags ?? WEBSOCKET_FLAG_FIN), static::class . '::push');
        if ($parts === null) {
            return false;
        }
        ['data' => $data, 'opcode' => $opcode, 'flags' => $flags] = $parts;
        if ($opcode > WEBSOCKET_OPCODE_BINARY) {
            return $this->control($fd, $parts);
        }
        if (($flags & WEBSOCKET_FLAG_FIN) === 0 || $opcode === WEBSOCKET_OPCODE_CONTINUATION) {
            return $this->piece($fd, $data, $opcode, $flags);
        }
        return $this->message($fd, $data, $opcode);
    }

    /** Sends a close frame; the connection ends when the client has answered it. */
    public function disconnect(int $fd, int $code = WEBSOCKET_CLOSE_NORMAL, string $reason = ''): bool
    {
        if (strlen($reason) > 123) {
            return $this->warn('disconnect', 'the max length of close reason is 123');
        }
        $there = $this->app->owns($fd) ? !$this->app->isClosing($fd)
            : $this->app->isDeciding($fd) || $this->app->isWebSocket($fd);
        if (!$there) {
            return $this->missing('disconnect', $fd);
        }
        if ($this->callbackOf('disconnect', $fd) !== null && $this->app->owns($fd)) {
            $this->parting[$fd] = true;
        }
        $this->app->close($fd, $code, $reason);
        return true;
    }

    public function isEstablished(int $fd): bool
    {
        return $this->leaving() === $fd || $this->app->isWebSocket($fd);
    }

    /** Sends a ping. Its answer counts as something that the client sent; wsd pings by itself besides. */
    public function ping(int $fd, string $data = ''): bool
    {
        return $this->push($fd, $data, WEBSOCKET_OPCODE_PING);
    }

    /** @param Frame|string|int|float|bool|null $data */
    public static function pack($data, $opcode = WEBSOCKET_OPCODE_TEXT, $flags = WEBSOCKET_FLAG_FIN): string
    {
        return Frame::pack($data, $opcode, $flags);
    }

    public static function unpack(string $data): Frame|false
    {
        return Frame::unpack($data);
    }

    protected function check(): void
    {
        if (!isset($this->handlers['message'])) {
            throw new \Swoole\Exception('require onMessage callback');
        }
    }

    protected function connectHandlers(): void
    {
        parent::connectHandlers();
        $message = $this->handlers['message'];
        $this->app->on('message', function (App $app, int $fd, string $data, int $opcode, int $flags) use ($message) {
            $frame = new Frame();
            $frame->fd = $fd;
            $frame->data = $data;
            $frame->opcode = $opcode;
            if ($flags & Protocol::FLAG_COMPRESSED) {
                $frame->flags |= SWOOLE_WEBSOCKET_FLAG_COMPRESS;
            }
            ($this->portOf === [] ? $message : $this->callbackOf('message', $fd))($this, $frame);
        });
        $this->bindControl();
        $this->app->on('close', fn (App $app, int $fd, Close $close) => $this->closed($fd, $close));
        $several = count($this->ports) > 1;
        if ($this->asks()) {
            $this->app->on('handshake', fn (App $app, \Wsd\Request $request) => $this->asked($request));
        }
        $this->bindPlain();
        // onClose may ask who has left, so that is kept.
        $opens = $this->handles('connect') || ($this->handles('open') && !$this->handles('handshake'));
        if ($several || $opens || $this->remembers()) {
            $this->app->on('open', fn (App $app, \Wsd\Request $request) => $this->opened($request));
        }
        if ($several || $this->remembers() || $this->handles('attach')) {
            $this->app->on('attach', function (App $app, \Wsd\Request $request): void {
                $this->came($request);
                $attach = $this->callbackOf('attach', $request->fd);
                $attach !== null && $attach($this, Request::of($request, $this->port, $this->setting));
            });
        }
    }

    /** Keeps who came, for the callbacks of its end, and by which port, where the server has several. */
    private function came(\Wsd\Request $request): void
    {
        if ($this->remembers()) {
            $this->met[$request->fd] = pack('q', (int) (microtime(true) * 1000)) . "$request->peer $request->client";
        }
        $this->byPort($request);
    }

    /** Whether a callback hears of a client that leaves, and may ask who that was. */
    private function remembers(): bool
    {
        return $this->remembers ??= $this->handles('close') || $this->handles('disconnect')
            || !empty($this->setting['open_websocket_close_frame']);
    }

    private function byPort(\Wsd\Request $request): void
    {
        $port = $this->portAt($request);
        if ($port !== null) {
            $this->portOf[$request->fd] = $port;
        }
    }

    /** @return array<string, mixed>|null what App::info() would have said of a client that has left */
    private function known(int $fd): ?array
    {
        if (!isset($this->met[$fd])) {
            return null;
        }
        $since = unpack('q', $this->met[$fd])[1];
        [$peer, $client] = explode(' ', substr($this->met[$fd], 8));
        return $this->described($fd, $peer, $client, $since);
    }

    /** @return array<string, mixed> what App::info() says of a client while it is here */
    private function described(int $fd, string $peer, string $client, int $since): array
    {
        return [
            'fd' => $fd,
            'worker' => (int) $this->app->fact('worker'),
            'process' => (int) $this->app->fact('process'),
            'peer' => $peer,
            'client' => $client === '' ? null : $client,
            'connected_at' => $since,
            'idle_ms' => 0,
            'plain' => false,
        ];
    }

    private function opened(\Wsd\Request $request): void
    {
        $this->came($request);
        // Where a handshake has to be let in first, it was told of before that.
        $this->hearsPlain() && $this->asks() || $this->connected($request->fd);
        // With a handshake of its own, a server gets no open: Swoole's rule.
        if ($this->callbackOf('handshake', $request->fd) === null) {
            $open = $this->callbackOf('open', $request->fd);
            $open !== null && $open($this, Request::of($request, $this->port, $this->setting));
        }
    }

    /** Where the script wants pings, it answers them; of the two, it may want only pongs. */
    private function bindControl(): void
    {
        $pings = !empty($this->setting['open_websocket_ping_frame']);
        $pongs = !empty($this->setting['open_websocket_pong_frame']);
        if (!$pings && !$pongs) {
            return;
        }
        $wanted = [App::PING => $pings, App::PONG => $pongs];
        $this->app->on('control', function (App $app, int $fd, string $data, int $opcode) use ($wanted) {
            if ($wanted[$opcode]) {
                $frame = new Frame();
                [$frame->fd, $frame->data, $frame->opcode, $frame->finish] = [$fd, $data, $opcode, true];
                $this->callbackOf('message', $fd)($this, $frame);
            } elseif ($opcode === App::PING) {
                $app->push($fd, $data, App::PONG);
            }
        });
    }

    protected function hearsPlain(): bool
    {
        return $this->handles('disconnect');
    }

    /** Swoole calls onDisconnect for what ends and is no open WebSocket: then onConnect for it, too. */
    private function bindPlain(): void
    {
        if (!$this->hearsPlain()) {
            return;
        }
        $this->app->on('connect', function (App $app, \Wsd\Request $request): void {
            $this->came($request);
            $this->connected($request->fd);
        });
        $this->app->on('disconnect', function (App $app, int $fd): void {
            $this->disconnected($fd);
        });
    }

    private function connected(int $fd): void
    {
        $connect = $this->callbackOf('connect', $fd);
        $connect !== null && $connect($this, $fd, self::reactor($fd));
    }

    private function disconnected(int $fd): void
    {
        $handler = $this->callbackOf('disconnect', $fd) ?? $this->callbackOf('close', $fd);
        $known = $this->known($fd);
        $this->closing = $known === null ? null : ['plain' => true] + $known;
        unset($this->met[$fd]);
        try {
            $handler !== null && $handler($this, $fd, self::reactor($fd));
        } finally {
            unset($this->portOf[$fd]);
            $this->closing = null;
        }
    }

    private function closed(int $fd, Close $close): void
    {
        unset($this->pieces[$fd]);
        $parting = isset($this->parting[$fd]);
        unset($this->parting[$fd]);
        $known = $this->known($fd);
        $this->closing = $known === null ? null : $known + ['uid' => $this->app->uid($fd)];
        unset($this->met[$fd]);
        try {
            if (!empty($this->setting['open_websocket_close_frame']) && $close->by === 'client') {
                $this->callbackOf('message', $fd)($this, self::frameOf($fd, $close));
            }
            $handler = $this->callbackOf($parting ? 'disconnect' : 'close', $fd);
            // Swoole tells a server's own close by a reactor of -1.
            $handler !== null && $handler($this, $fd, $close->by === 'server' ? -1 : self::reactor($fd));
        } finally {
            unset($this->portOf[$fd]);
            $this->closing = null;
        }
    }

    /** The frame with which a client has closed. */
    private static function frameOf(int $fd, Close $close): CloseFrame
    {
        $frame = new CloseFrame();
        $frame->fd = $fd;
        // One without a code has Swoole's default (RFC 6455 section 7.4.1: 1005 is no code of a frame).
        $frame->code = $close->code === self::NO_CODE ? WEBSOCKET_CLOSE_NORMAL : $close->code;
        $frame->reason = $close->reason;
        $frame->finish = true;
        return $frame;
    }

    /** The worker that a client came to. */
    private static function reactor(int $fd): int
    {
        return intdiv($fd, 2 ** 39) % 256;
    }

    /** Whether each handshake is to be let in or refused by this process. */
    private function asks(): bool
    {
        $refuses = fn (object $port): bool => $port instanceof \Swoole\Server\Port && !$port->opensWebSockets();
        return $this->handles('handshake') || $this->handles('beforehandshakeresponse')
            || array_filter($this->ports, $refuses) !== [];
    }

    private function asked(\Wsd\Request $request): Accept|\Wsd\Response
    {
        if (!$this->hearsPlain()) {
            return $this->handshake($request);
        }
        $this->came($request);
        $this->connected($request->fd);
        $answer = null;
        try {
            return $answer = $this->handshake($request);
        } finally {
            $answer instanceof Accept
                || $this->app->timers->add(0, fn () => $this->disconnected($request->fd), false);
        }
    }

    private function handshake(\Wsd\Request $request): Accept|\Wsd\Response
    {
        $port = $this->portAt($request);
        if ($port?->opensWebSockets() === false) {
            return new \Wsd\Response(400);
        }
        $own = fn (string $event): ?callable => $port?->getCallback($event) ?? $this->handlers[$event] ?? null;
        $response = Response::of($request->fd);
        $seen = Request::of($request, $this->port, $this->setting);
        $kept = true;
        $now = (int) (microtime(true) * 1000);
        $this->closing = ['status' => WEBSOCKET_STATUS_HANDSHAKE]
            + $this->described($request->fd, $request->peer, $request->client, $now);
        try {
            if ($own('handshake') !== null) {
                $kept = $own('handshake')($seen, $response) !== false;
            } else {
                $own('beforehandshakeresponse') !== null && $own('beforehandshakeresponse')($this, $seen, $response);
                $response->isWritable() && $response->status(101);
            }
        } finally {
            $this->closing = null;
        }
        $said = Response::said($response);
        if ($said->status === 101 && $kept) {
            return new Accept($said->header('sec-websocket-protocol') ?? '', self::others($said));
        }
        $said->status = $said->status < 300 ? 403 : $said->status;
        return $said;
    }

    /**
     * Fields of a 101 besides those that wsd writes.
     *
     * @return list<array{0: string, 1: string}>
     */
    protected static function others(\Wsd\Response $said): array
    {
        $other = fn (array $field): bool => !in_array($field[0], self::OF_THE_101, true);
        return array_values(array_filter($said->fields, $other));
    }

    private function message(int $fd, string $data, int $opcode): bool
    {
        return $this->app->pushUnasked($fd, $data, $opcode) || $this->confirmed($fd, $data, $opcode);
    }

    private function confirmed(int $fd, string $data, int $opcode): bool
    {
        $verdict = $this->app->pushConfirmed($fd, $data, $opcode);
        // With send_yield the sender waits for a client that reads slowly; without coroutines that
        // is this process.
        $until = empty($this->setting['send_yield']) ? 0 : microtime(true) + self::YIELD_SECONDS;
        while ($verdict === 'full' && microtime(true) < $until && $this->app->await(self::YIELD_STEP_SECONDS)) {
            $verdict = $this->app->pushConfirmed($fd, $data, $opcode);
        }
        switch ($verdict) {
            case 'queued':
            case 'relayed':
                return true;
            case 'gone':
                return $this->missing('push', $fd);
            case 'full':
                SwooleErrors::$last = SWOOLE_ERROR_OUTPUT_BUFFER_OVERFLOW;
                return $this->warn('push', "connection[fd=$fd] output buffer overflow");
            default:
                SwooleErrors::$last = SWOOLE_ERROR_WEBSOCKET_PACK_FAILED;
                return $this->warn('push', "session#$fd: $verdict");
        }
    }

    /** There is no WebSocket of that number. */
    private function missing(string $method, int $fd): bool
    {
        if ($this->leaving() === $fd) {
            // Swoole says nothing either where onClose pushes to all, the one that leaves among them.
            SwooleErrors::$last = SWOOLE_ERROR_SESSION_CLOSING;
            return false;
        }
        if (!$this->app->exists($fd)) {
            return $this->gone($method, $fd);
        }
        SwooleErrors::$last = SWOOLE_ERROR_WEBSOCKET_UNCONNECTED;
        return $this->warn($method, "the connected client of connection[$fd] is not a websocket client or closed");
    }

    /** Gathers a message that is pushed in pieces, since wsd sends whole ones. */
    private function piece(int $fd, string $data, int $opcode, int $flags): bool
    {
        $opcode = $opcode === WEBSOCKET_OPCODE_CONTINUATION
            ? ord(($this->pieces[$fd] ?? "\x01")[0])
            : $opcode;
        $whole = ($this->pieces[$fd] ?? chr($opcode)) . $data;
        if (($flags & WEBSOCKET_FLAG_FIN) === 0) {
            $this->pieces[$fd] = $whole;
            return true;
        }
        unset($this->pieces[$fd]);
        return $this->push($fd, substr($whole, 1), $opcode);
    }

    /** @param array{data: string, opcode: int, code: int, reason: string} $parts of a control frame */
    private function control(int $fd, array $parts): bool
    {
        if ($parts['opcode'] === WEBSOCKET_OPCODE_CLOSE) {
            // Swoole's push of a close frame closes nothing by itself: the client goes on to be heard.
            $pushed = $this->disconnect($fd, $parts['code'], $parts['reason']);
            $pushed && $this->app->hear($fd);
            return $pushed;
        }
        if ($parts['opcode'] !== WEBSOCKET_OPCODE_PING && $parts['opcode'] !== WEBSOCKET_OPCODE_PONG) {
            SwooleErrors::$last = SWOOLE_ERROR_WEBSOCKET_BAD_OPCODE;
            return $this->warn('push', "the opcode [{$parts['opcode']}] is invalid");
        }
        return $this->message($fd, $parts['data'], $parts['opcode']);
    }
}
