<?php

declare(strict_types=1);

namespace Swoole;

use Wsd\App;
use Wsd\Compression;
use Wsd\Following;
use Wsd\Keeper;
use Wsd\Launcher;
use Wsd\Protocol;
use Wsd\SwooleErrors;
use Wsd\SwooleScript;
use Wsd\SwooleSettings;
use Wsd\StaticFiles;
use Wsd\Watcher;

/** What Swoole's servers have in common. See docs/swoole.md for what works and what differs. */
#[\AllowDynamicProperties]
class Server implements \Wsd\OpenSwooleServer
{
    use \Wsd\Missing;
    use \Wsd\RoomsOf;

    /** Events that wsd has; the others of Swoole are accepted, and said at the start. */
    protected const EVENTS = ['start', 'workerstart', 'workerstop', 'open', 'message', 'close', 'request',
        'handshake', 'beforehandshakeresponse', 'pipemessage', 'task', 'finish', 'connect', 'attach'];
    protected const SILENT = ['disconnect', 'workererror', 'workerexit', 'bufferfull', 'bufferempty', 'receive',
        'packet'];
    /** Events of the server's life, for the process that the user started. */
    private const KEPT = ['shutdown', 'beforeshutdown', 'managerstart', 'managerstop', 'beforereload', 'afterreload'];
    /** How long a worker that is idle may take to say so. */
    private const STATUS_SECONDS = 0.25;
    /** A longer task or result travels as a file, so that many can wait: for one process, up to 32 MiB wait. */
    private const FRAME_BYTES_MAX = 64 << 10;
    /** What stands around a task or a result in its frame, at most. */
    private const ENVELOPE_BYTES = 64;
    private const LOOKED_FOR = ['managerstart', 'managerstop', 'beforereload', 'afterreload'];

    public $setting = [];
    public $connections;
    public $host = '';
    public $port = 0;
    public $type = 0;
    public $mode = 0;
    public $ports = [];
    public $master_pid = 0;
    public $manager_pid = 0;
    public $worker_id = -1;
    public $taskworker = false;
    public $worker_pid = 0;
    public $ssl = false;

    protected App $app;
    /** @var array<string, callable> */
    protected array $handlers = [];
    private int $tasks = 0;
    /** @var array<int, callable> what task() is to call with the result */
    private array $finishes = [];
    /** @var array<int, array{0: mixed}|null> results that are waited for */
    private array $awaited = [];
    private ?array $task = null;
    /** @var array<int, Server\Port> of the clients that came by listen() */
    protected array $portOf = [];
    /** @var array<string, mixed>|null of the client whose handshake is being decided, or whose onClose runs */
    protected ?array $closing = null;
    private float $started = 0;
    private bool $ended = false;
    /** @var array<int, int> what workers have answered that were asked whether they are busy */
    private array $statuses = [];
    private ?StaticFiles $files = null;
    private \Wsd\ServerProcess $users;
    private int $requests = 0;

    public function __construct(
        string $host = '0.0.0.0',
        int $port = 0,
        int $mode = SWOOLE_BASE,
        int $sock_type = SWOOLE_SOCK_TCP,
    ) {
        $this->host = $host;
        $this->port = $port;
        $this->mode = $mode;
        $this->type = $sock_type;
        $this->ports = [$this];
        $this->app = new App();
        $this->users = new \Wsd\ServerProcess($this->app);
        $this->connections = new Connection\Iterator($this->app, $this);
        Timer::bind($this->app->timers);
    }

    public function set(array $settings): bool
    {
        if ($this->started > 0) {
            return $this->warn('set', 'server is running, unable to execute ' . static::class . '->set');
        }
        $this->setting = array_merge($this->setting ?? [], $settings);
        return true;
    }

    public function on(string $event_name, callable $callback): bool
    {
        if ($this->started > 0) {
            return $this->warn('on', 'server is running, unable to register event callback function');
        }
        $name = strtolower($event_name);
        if (!in_array($name, [...static::EVENTS, ...static::SILENT, ...self::KEPT], true)) {
            return $this->warn('on', "unknown event types[$event_name]");
        }
        $this->handlers[$name] = $callback;
        return true;
    }

    public function getCallback(string $event_name): ?callable
    {
        return $this->handlers[strtolower($event_name)] ?? null;
    }

    /** Serves. In the process that the user started, wsd takes its place. */
    public function start(): bool
    {
        if ($this->started > 0) {
            return $this->warn('start', 'The server is running, unable to execute ' . static::class . '->start()');
        }
        $this->check();
        SwooleScript::look();
        if (App::isAppProcess()) {
            \Wsd\Preamble::drop();
            $this->connectHandlers();
            exit($this->app->run());
        }
        if ($this->ended) {
            $why = 'The server have been shutdown, unable to execute Swoole\Server->start()';
            trigger_error("Swoole\Server::start(): $why", E_USER_WARNING);
            return false;
        }
        $settings = new SwooleSettings($this->setting ?? [], $this->host, $this->port, $this->type);
        foreach (array_slice($this->ports, 1) as $port) {
            $settings->add($port->host, $port->port, $port->type, $port->setting);
        }
        foreach ($settings->notices as $notice) {
            fwrite(STDERR, "wsd: $notice\n");
        }
        foreach (array_intersect(static::SILENT, array_keys($this->handlers)) as $event) {
            fwrite(STDERR, "wsd: on('$event') is never called: see docs/swoole.md\n");
        }
        $keeper = $this->keeper($settings->wsd);
        $code = Launcher::start([
            'handler' => 'app',
            'app.command' => Launcher::command(),
            'app.cwd' => getcwd() ?: '/',
            'app.stdout' => 'own',
            ...($this->users->count() > 0 ? ['app.user_processes' => $this->users->count()] : []),
            ...$settings->wsd,
        ], $keeper);
        $this->ended = true;
        return $code === 0;
    }

    /** Who stays, where this process has something to do while the server runs, or after it. */
    private function keeper(array $settings): ?Keeper
    {
        $events = array_intersect(self::KEPT, array_keys($this->handlers));
        if (!empty($settings['daemonize'])) {
            foreach ($events as $event) {
                fwrite(STDERR, "wsd: on('$event') is never called with daemonize: see docs/swoole.md\n");
            }
            return null;
        }
        $watch = array_values((array) ($this->setting['watch'] ?? []));
        if ($events === [] && $watch === [] && !Following::calls()) {
            return null;
        }
        $this->app = new \Wsd\Outside((string) $settings['runtime_dir']);
        $this->connections = new Connection\Iterator($this->app, $this);
        Timer::bind($this->app->timers);
        $tell = function (string $event, int $master, int $manager): void {
            [$this->master_pid, $this->manager_pid] = [$master, $manager];
            $this->call($event);
        };
        return new Keeper(
            $tell,
            (string) $settings['runtime_dir'],
            array_intersect(self::LOOKED_FOR, $events) !== [],
            $watch === [] ? null : new Watcher($watch),
            $this->app->timers,
        );
    }

    /** Starts new processes with the code as it is on disk now; clients stay connected. */
    public function reload(bool $only_task = false): bool
    {
        return $this->signal('USR1');
    }

    public function shutdown(): bool
    {
        return $this->signal('TERM');
    }

    /** Ends this worker's process; another takes its place and its clients. */
    public function stop(int $worker_id = -1, bool $wait_event = false): bool
    {
        if ($worker_id !== -1 && $worker_id !== $this->worker_id) {
            return $this->warn('stop', 'only the process itself can be stopped here');
        }
        $this->app->stop();
        return true;
    }

    public function close(int $fd, bool $reset = false): bool
    {
        if ($this->owns($fd) ? $this->app->isClosing($fd) : !$this->app->exists($fd)) {
            return $this->gone('close', $fd);
        }
        $this->app->close($fd);
        return true;
    }

    public function exist(int $fd): bool
    {
        return ($this->closing['fd'] ?? 0) === $fd || $this->app->exists($fd);
    }

    public function exists(int $fd): bool
    {
        return $this->exist($fd);
    }

    public function getClientInfo(int $fd, int $reactor_id = -1, bool $ignore_error = false): array|false
    {
        $info = $this->app->info($fd) ?? (($this->closing['fd'] ?? 0) === $fd ? $this->closing : null);
        if ($info === null) {
            SwooleErrors::$last = SWOOLE_ERROR_SESSION_NOT_EXIST;
            return false;
        }
        $colon = strrpos($info['peer'], ':');
        $last = microtime(true) - $info['idle_ms'] / 1000;
        $uid = $info['uid'] ?? null;
        return [
            // A number goes out as one, as Swoole's bind() takes it.
            ...($uid === null ? [] : ['uid' => (string) (int) $uid === $uid ? (int) $uid : $uid]),
            'websocket_status' => $info['status'] ?? ($info['plain'] ? 0 : WEBSOCKET_STATUS_ACTIVE),
            'server_port' => ($this->portOf[$fd] ?? $this)->port,
            'server_fd' => 0,
            'socket_fd' => 0,
            'socket_type' => $this->type,
            'remote_port' => (int) substr($info['peer'], $colon + 1),
            'remote_ip' => $info['client'] ?? trim(substr($info['peer'], 0, $colon), '[]'),
            'reactor_id' => $info['worker'],
            'worker_id' => $this->workerOf($fd, $info),
            'connect_time' => intdiv($info['connected_at'], 1000),
            'last_time' => (int) $last,
            'last_recv_time' => $last,
            'last_send_time' => $last,
            'last_dispatch_time' => $last,
            'close_errno' => 0,
            'recv_queued_bytes' => 0,
            'send_queued_bytes' => 0,
        ];
    }

    public function connection_info(int $fd, int $reactor_id = -1, bool $ignore_error = false): array|false
    {
        return $this->getClientInfo($fd, $reactor_id, $ignore_error);
    }

    public function getClientList(int $start_fd = 0, int $find_count = 10): array|false
    {
        if ($find_count > 100) {
            return $this->warn('getClientList', 'swoole connection list max_find_count=100');
        }
        return $this->clients($start_fd, max(1, $find_count)) ?: false;
    }

    public function connection_list(int $start_fd = 0, int $find_count = 10): array|false
    {
        return $this->getClientList($start_fd, $find_count);
    }

    public function stats(): array
    {
        $stats = $this->app->stats();
        return [
            'start_time' => (int) $this->started,
            'connection_num' => ($stats['connections'] ?? 0) + (int) ($this->leaving() !== null),
            'worker_num' => $this->workers(),
            'task_worker_num' => $this->taskWorkers(),
            'idle_worker_num' => $this->idle(0, $this->workers()),
            'task_idle_worker_num' => $this->idle($this->workers(), $this->taskWorkers()),
            'tasking_num' => 0,
            'request_count' => $this->app->handled(),
            'worker_request_count' => $this->app->handled(),
            'pushes_refused' => $stats['pushes_refused'] ?? 0,
            'events_queued' => $stats['events_queued'] ?? 0,
        ];
    }

    public function tick(int $ms, callable $callback, mixed ...$params): int|false
    {
        return Timer::tick($ms, $callback, ...$params);
    }

    public function after(int $ms, callable $callback, mixed ...$params): int|false
    {
        return Timer::after($ms, $callback, ...$params);
    }

    public function clearTimer(int $timer_id): bool
    {
        return Timer::clear($timer_id);
    }

    public function defer(callable $callback): void
    {
        $this->app->timers->add(0, fn () => $callback(), false);
    }

    /**
     * Has a task process run onTask.
     *
     * @param int $worker_id which task process, 0 to task_worker_num - 1; -1 is one with little to do
     */
    public function task(mixed $data, int $worker_id = -1, ?callable $finish_callback = null): int|false
    {
        $id = $this->give('task', $data, $worker_id, false);
        if ($id !== false && $finish_callback !== null) {
            $this->finishes[$id] = $finish_callback;
        }
        return $id;
    }

    /** Has a task process run onTask, and waits for its result; false where none comes in time. */
    public function taskwait(mixed $data, float $timeout = 0.5, int $worker_id = -1): mixed
    {
        $id = $this->give('taskwait', $data, $worker_id, true);
        return $id === false ? false : ($this->results([$id], $timeout)[$id] ?? false);
    }

    /** @return array<int, mixed> the results that came in time, under the keys of their tasks */
    public function taskWaitMulti(array $tasks, float $timeout = 0.5): array|false
    {
        if (!$this->takes('taskWaitMulti')) {
            return false;
        }
        // As in Swoole, a result stands at its task's place in the order, whatever the task's key.
        $ids = array_map(fn ($task) => $this->give('taskWaitMulti', $task, -1, true), array_values($tasks));
        $results = $this->results(array_filter($ids, is_int(...)), $timeout);
        return array_filter(
            array_map(fn ($id) => $results[$id] ?? null, $ids),
            fn ($result) => $result !== null,
        );
    }

    /** @return array<int, mixed> as taskWaitMulti(), false for those without a result */
    public function taskCo(array $tasks, float $timeout = 0.5): array|false
    {
        $results = $this->taskWaitMulti($tasks, $timeout);
        return $results === false ? false
            : array_map(fn (int $place) => $results[$place] ?? false, array_keys(array_values($tasks)));
    }

    /** Gives the result of the task at hand to the process that gave it. */
    public function finish(mixed $data): bool
    {
        if ($this->task === null) {
            return $this->warn('finish', 'can only be used in the task callback');
        }
        return $this->tell($this->task, $data);
    }

    /** Sends something to another worker's onPipeMessage; what is no string is serialized. */
    public function sendMessage(mixed $message, int $dst_worker_id): bool
    {
        if ($dst_worker_id === $this->worker_id) {
            return $this->warn('sendMessage', "can't send messages to self");
        }
        $all = $this->workers() + $this->taskWorkers() + (int) $this->app->fact('users');
        if ($dst_worker_id < 0 || $dst_worker_id >= $all) {
            return $this->warn('sendMessage', "worker_id[$dst_worker_id] is invalid");
        }
        if (!isset($this->handlers['pipemessage'])) {
            return $this->warn('sendMessage', 'onPipeMessage is null, can\'t use sendMessage');
        }
        $bytes = is_string($message) ? "s$message" : 'o' . serialize($message);
        return $this->post($dst_worker_id, pack('V', $this->worker_id) . $bytes);
    }

    public function getLastError(): int
    {
        return SwooleErrors::$last;
    }

    public function getWorkerId(): int|false
    {
        return $this->worker_id < 0 ? false : $this->worker_id;
    }

    public function getWorkerPid(int $worker_id = -1): int|false
    {
        if ($worker_id === -1 || $worker_id === $this->worker_id) {
            return getmypid();
        }
        $behind = $worker_id - $this->workers();
        if ($worker_id < 0 || $behind >= $this->taskWorkers() + (int) $this->app->fact('users')) {
            return false;
        }
        $processes = (int) $this->app->fact('processes');
        $place = intdiv($worker_id, $processes) . '/' . $worker_id % $processes;
        if ($behind >= 0) {
            // Those of tasks, and those with a function of their own, are each dealt out to the workers.
            $users = $behind - $this->taskWorkers();
            $slot = ($users >= 0 ? $users : $behind) % (int) $this->app->fact('worker_num');
            $place = "$slot/" . ($processes + $behind);
        }
        return self::processAt($place, $this->master_pid) ?? false;
    }

    /**
     * Whether a worker handles an event. It is asked, and one that does not answer at once is busy.
     *
     * @return int|false SWOOLE_WORKER_BUSY or SWOOLE_WORKER_IDLE
     */
    public function getWorkerStatus(int $worker_id = -1): int|false
    {
        $id = $worker_id === -1 ? $this->worker_id : $worker_id;
        if ($id < 0 || $id >= $this->workers() + $this->taskWorkers()) {
            return false;
        }
        return $this->statuses([$id])[$id];
    }

    public function getMasterPid(): int
    {
        return $this->master_pid;
    }

    public function getManagerPid(): int
    {
        return $this->manager_pid;
    }

    /** Leaves a client alone when the idle are closed. The mark stays over reloads. */
    public function protect(int $fd, bool $is_protected = true): bool
    {
        if ($this->owns($fd)) {
            $this->app->protect($fd, $is_protected);
            return true;
        }
        $there = in_array($this->app->protectConfirmed($fd, $is_protected), ['queued', 'relayed'], true);
        return $there || $this->gone('protect', $fd);
    }

    /**
     * Clients that have sent nothing for heartbeat_idle_time; with $close they are closed.
     *
     * @return list<int>|false false where heartbeat_check_interval is not set
     */
    public function heartbeat(bool $close = false): array|false
    {
        $settings = new SwooleSettings($this->setting ?? [], $this->host, $this->port, $this->type);
        if ((int) ($this->setting['heartbeat_check_interval'] ?? 0) < 1) {
            return false;
        }
        $most = 1000 * (int) $settings->wsd['heartbeat_idle_time'];
        $idle = [];
        foreach ($this->connections as $fd) {
            if (($this->app->info($fd)['idle_ms'] ?? 0) >= $most) {
                $idle[] = $fd;
                $close && $this->close($fd);
            }
        }
        return $idle;
    }

    /** Listens on one more address, for WebSocket and HTTP, with callbacks of its own where it has some. */
    public function listen(string $host, int $port, int $sock_type): Server\Port|false
    {
        if ($this->started > 0) {
            return $this->warn('listen', 'must be called before the server starts');
        }
        $stream = [SWOOLE_SOCK_TCP, SWOOLE_SOCK_TCP6, SWOOLE_SOCK_UNIX_STREAM];
        if (!in_array($sock_type & ~SWOOLE_SSL, $stream, true)) {
            throw new \RuntimeException('wsd has no UDP and no datagrams: see docs/swoole.md');
        }
        return $this->ports[] = new Server\Port($host, $port, $sock_type);
    }

    public function addListener(string $host, int $port, int $sock_type): Server\Port|false
    {
        return $this->listen($host, $port, $sock_type);
    }

    /**
     * Has the server run a process with a function of its own, and again where it ends.
     *
     * @return int|false its number among those of the server
     */
    public function addProcess(Process $process): int|false
    {
        return $this->started > 0
            ? $this->warn('addProcess', 'must be called before the server starts')
            : $this->users->add($process);
    }

    /**
     * @internal
     * @return list<int> clients greater than $after, at most so many; in onClose the one that leaves is among them
     */
    public function clients(int $after, int $count): array
    {
        $clients = $this->app->list($after, $count);
        $leaving = $this->leaving();
        if ($leaving === null || $leaving <= $after || in_array($leaving, $clients, true)) {
            return $clients;
        }
        $clients[] = $leaving;
        sort($clients);
        return array_slice($clients, 0, $count);
    }

    /** @internal the WebSocket whose onClose runs: as in Swoole, a client is there until onClose has ended */
    public function leaving(): ?int
    {
        $leaves = $this->closing !== null && !isset($this->closing['status']) && !$this->closing['plain'];
        return $leaves ? $this->closing['fd'] : null;
    }

    /** @internal the native application behind this server */
    public function wsd(): App
    {
        return $this->app;
    }

    /** Sets the handlers of the native application. */
    protected function wsdRooms(): App
    {
        return $this->app;
    }

    protected function connectHandlers(): void
    {
        $this->app->on('start', function (App $app): void {
            $processes = (int) $app->fact('processes');
            $process = (int) $app->fact('process');
            $user = $this->users->find();
            $this->taskworker = $process >= $processes && $user === null;
            $this->worker_id = match (true) {
                $user !== null => $this->workers() + $this->taskWorkers() + $user,
                $this->taskworker => $this->workers() + $process - $processes,
                default => $app->fact('worker') * $processes + $process,
            };
            $this->worker_pid = getmypid();
            $this->master_pid = (int) $app->fact('master_pid');
            $this->manager_pid = (int) $app->fact('manager_pid');
            $this->started = microtime(true);
            $this->setting['worker_num'] = $this->workers();
            $this->setting['task_worker_num'] = $this->taskWorkers();
            if ($user !== null) {
                $app->on('main', fn () => $this->users->run());
                return;
            }
            $first = $this->worker_id === 0 && $app->fact('start') === 0 && $app->fact('epoch') === 1;
            if ($first && isset($this->handlers['start'])) {
                try {
                    ($this->handlers['start'])($this);
                } catch (\Throwable $error) {
                    // It is of the server, and of no process.
                    file_put_contents('php://stderr', "Uncaught $error\n");
                }
            }
            $this->call('workerstart', $this->worker_id);
        });
        $this->app->on('stop', fn () => $this->users->find() ?? $this->call('workerstop', $this->worker_id));
        $this->app->on('pipe', fn (App $app, int $from, int $tag, string $data) => $this->posted($data));
        $this->app->on('note', fn (App $app, int $from, int $tag, string $data) => $this->posted($data));
        $this->files = StaticFiles::of($this->setting ?? []);
        if ($this->files !== null || $this->handles('request') || $this->hearsPlain()) {
            $this->app->on('request', $this->request(...));
        }
    }

    protected function check(): void
    {
    }

    protected function call(string $event, mixed ...$arguments): mixed
    {
        $handler = $this->handlers[$event] ?? null;
        return $handler === null ? null : $handler($this, ...$arguments);
    }

    /** The port that a request came by, null for that of the server itself. */
    protected function portAt(\Wsd\Request $request): ?Server\Port
    {
        if (count($this->ports) < 2) {
            return null;
        }
        [$host, $port] = $request->localAddress();
        $same = array_filter(
            array_slice($this->ports, 1),
            fn (Server\Port $other): bool => $other->port === $port
                && ($port !== $this->port || $other->host === $host || $other->host === '/' . ltrim($host, '/')),
        );
        return array_values($same)[0] ?? null;
    }

    /** Whether the ends of plain HTTP connections are told. */
    protected function hearsPlain(): bool
    {
        return false;
    }

    /** The callback of an event of a client, which is that of its port where the port has one. */
    protected function callbackOf(string $event, int $fd): ?callable
    {
        return ($this->portOf[$fd] ?? null)?->getCallback($event) ?? $this->handlers[$event] ?? null;
    }

    /** Whether the server or one of its ports has a callback of that event. */
    protected function handles(string $event): bool
    {
        $has = fn (object $port): bool => $port->getCallback($event) !== null;
        return array_filter($this->ports, $has) !== [];
    }

    protected function owns(int $fd): bool
    {
        return $this->app->owns($fd);
    }

    protected function gone(string $method, int $fd): bool
    {
        SwooleErrors::$last = SWOOLE_ERROR_SESSION_NOT_EXIST;
        return $this->warn($method, "session#$fd does not exists");
    }

    protected function warn(string $method, string $message): bool
    {
        trigger_error(static::class . "::$method(): $message", E_USER_WARNING);
        return false;
    }

    private function request(App $app, \Wsd\Request $request, \Wsd\Reply $reply): void
    {
        if ($this->files?->serve($request, $reply)) {
            return;
        }
        $port = count($this->ports) < 2 ? null : $this->portAt($request);
        $handler = $port?->getCallback('request') ?? $this->handlers['request'] ?? null;
        if ($handler === null && $this->files === null && !$this->handles('request')) {
            return; // wsd answers.
        }
        // Little is called here, since it costs every page.
        $setting = $this->setting;
        $most = $setting['buffer_output_size'] ?? $setting['output_buffer_size'] ?? null;
        $most = $most === null ? PHP_INT_MAX : SwooleSettings::bytes($most);
        $compression = empty($setting['http_compression']) ? null : Compression::of($setting, $request);
        $response = Http\Response::answering($reply, $request->fd, $most, $compression);
        if ($handler === null) {
            $response->status(404);
            $response->end();
            return;
        }
        try {
            $handler(Http\Request::of($request, $this->port, $this->setting), $response);
        } catch (\Throwable $error) {
            $reply->fail();
            throw $error;
        }
    }

    private function taskIsObject(): bool
    {
        return !empty($this->setting['task_use_object']) || !empty($this->setting['task_object'])
            || !empty($this->setting['task_enable_coroutine']);
    }

    /** Whether a task may be given, with a warning where it may not. */
    private function takes(string $method, int $to = -1): bool
    {
        $tasks = $this->taskWorkers();
        $why = match (true) {
            $tasks === 0 => "task method can't be executed without task_worker_num: set(['task_worker_num' => 1])",
            $this->taskworker => 'Server->task() cannot use in the task-worker',
            $to >= $tasks => "worker_id must be less than task_worker_num[$tasks]",
            !isset($this->handlers['task']) => 'require onTask callback',
            default => null,
        };
        return $why === null || $this->warn($method, $why);
    }

    /** Sends a task to a task process; gives its id. */
    private function give(string $method, mixed $data, int $to, bool $waits): int|false
    {
        if (!$this->takes($method, $to)) {
            return false;
        }
        $tasks = $this->taskWorkers();
        $packed = $this->packed($data);
        $id = $this->tasks++;
        $bytes = pack('V', $this->worker_id) . 't' . pack('PCV', $id, (int) $waits, getmypid()) . $packed;
        // Its result may come before the answer to what sends it.
        if ($waits) {
            $this->awaited[$id] = null;
        }
        // Worker n of wsd has the task processes n, n + worker_num and so on. Tasks are dealt out to the
        // workers in turn, since one that waits behind another would leave other task processes idle.
        $slot = ($this->app->fact('worker') + $id) % $tasks % max(1, (int) $this->app->fact('worker_num'));
        $sent = $to >= 0
            ? $this->post($this->workers() + $to, $bytes)
            : $this->app->send($slot, $bytes, 0, Protocol::TO_TASK | Protocol::TO_ANY);
        $sent || $this->unpacked($packed);
        return $sent ? $id : false;
    }

    /** A task or a result as bytes, or the name of a file with them where they are too long for a frame. */
    private function packed(mixed $data): string
    {
        $bytes = serialize($data);
        $most = min(self::FRAME_BYTES_MAX, (int) ($this->app->fact('frame_max') ?? PHP_INT_MAX));
        if (strlen($bytes) + self::ENVELOPE_BYTES <= $most) {
            return "b$bytes";
        }
        $path = @tempnam((string) ($this->setting['task_tmpdir'] ?? sys_get_temp_dir()), 'wsd-task-');
        if ($path !== false && @file_put_contents($path, $bytes) === strlen($bytes)) {
            return "f$path";
        }
        $path === false || @unlink($path);
        return "b$bytes";
    }

    private function unpacked(string $packed): mixed
    {
        $bytes = substr($packed, 1);
        if ($packed[0] === 'f') {
            $path = $bytes;
            $bytes = (string) file_get_contents($path);
            unlink($path);
        }
        return unserialize($bytes);
    }

    /** Sends bytes to the process of that worker id. */
    private function post(int $worker, string $bytes, int $flags = 0): bool
    {
        $processes = (int) $this->app->fact('processes');
        if ($worker < $this->workers()) {
            return $this->app->send(intdiv($worker, $processes), $bytes, $worker % $processes, $flags);
        }
        $number = $worker - $this->workers();
        $kind = Protocol::TO_TASK;
        if ($number >= $this->taskWorkers()) {
            $number -= $this->taskWorkers();
            $kind = Protocol::TO_USER;
        }
        $slot = $number % max(1, (int) $this->app->fact('worker_num'));
        return $this->app->send($slot, $bytes, $number, $flags | $kind);
    }

    /** Something that another process of this server sent with post(). */
    private function posted(string $bytes): void
    {
        $from = unpack('V', $bytes)[1];
        $rest = substr($bytes, 5);
        match ($bytes[4]) {
            's' => $this->call('pipemessage', $from, $rest),
            'o' => $this->call('pipemessage', $from, unserialize($rest)),
            'q' => $this->post($from, pack('V', $this->worker_id) . 'a' . chr($this->status()), Protocol::AS_NOTE),
            'a' => $this->statuses[$from] = ord($rest),
            'p' => $this->users->written(unpack('V', $rest)[1], substr($rest, 4)),
            't' => $this->runTask($from, unpack('Pid/Cwaits/Vpid', $rest), $this->unpacked(substr($rest, 13))),
            'f' => $this->finished(unpack('Pid/Vpid', $rest), substr($rest, 12)),
            'w' => $this->come(unpack('Pid/Vpid', $rest), substr($rest, 12)),
        };
    }

    /** @param array{id: int, waits: int, pid: int} $task */
    private function runTask(int $from, array $task, mixed $data): void
    {
        [$outer, $this->task] = [$this->task, [...$task, 'from' => $from]];
        try {
            $result = $this->taskIsObject()
                ? $this->call('task', Server\Task::of($task['id'], $from, $data, $this->finish(...)))
                : $this->call('task', $task['id'], $from, $data);
            if ($result !== null) {
                $this->tell($this->task, $result);
            }
        } finally {
            $this->task = $outer;
        }
    }

    /** @param array{id: int, waits: int, pid: int, from: int} $task */
    private function tell(array $task, mixed $result): bool
    {
        $waits = $task['waits'] !== 0;
        $packed = $this->packed($result);
        $bytes = pack('V', $this->worker_id) . ($waits ? 'w' : 'f') . pack('PV', $task['id'], $task['pid']) . $packed;
        $sent = $this->post($task['from'], $bytes, $waits ? Protocol::AS_NOTE : 0);
        $sent || $this->unpacked($packed);
        return $sent;
    }

    /**
     * A result for which this process waits, if it does still.
     *
     * @param array{id: int, pid: int} $task
     */
    private function come(array $task, string $packed): void
    {
        if ($task['pid'] !== getmypid()) {
            return;
        }
        $result = $this->unpacked($packed);
        if (array_key_exists($task['id'], $this->awaited)) {
            $this->awaited[$task['id']] = [$result];
        }
    }

    /**
     * During a reload a result reaches two processes of a worker: it is for the one that gave the task,
     * and where that has ended, for the one in its place.
     *
     * @param array{id: int, pid: int} $task
     */
    private function finished(array $task, string $packed): void
    {
        ['id' => $id, 'pid' => $pid] = $task;
        if ($pid !== getmypid()) {
            is_dir("/proc/$pid") || $this->call('finish', $id, $this->unpacked($packed));
            return;
        }
        $result = $this->unpacked($packed);
        $finish = $this->finishes[$id] ?? null;
        unset($this->finishes[$id]);
        $finish !== null ? $finish($this, $id, $result) : $this->call('finish', $id, $result);
    }

    /**
     * @param list<int> $ids
     * @return array<int, mixed>
     */
    private function results(array $ids, float $timeout): array
    {
        $this->awaited += array_fill_keys($ids, null);
        $until = microtime(true) + $timeout;
        $missing = fn (): bool => in_array(null, array_intersect_key($this->awaited, array_flip($ids)), true);
        while ($missing() && ($left = $until - microtime(true)) > 0 && $this->app->await($left));
        $results = array_filter(array_intersect_key($this->awaited, array_flip($ids)));
        $this->awaited = array_diff_key($this->awaited, array_flip($ids));
        return array_map(fn (array $result) => $result[0], $results);
    }

    private function status(): int
    {
        return $this->app->isBusy() ? SWOOLE_WORKER_BUSY : SWOOLE_WORKER_IDLE;
    }

    private function idle(int $first, int $count): int
    {
        $all = $count > 0 ? $this->statuses(range($first, $first + $count - 1)) : [];
        return count(array_filter($all, fn (int $status): bool => $status === SWOOLE_WORKER_IDLE));
    }

    /**
     * Asks workers whether they are busy, which those that are do not answer in time.
     *
     * @param list<int> $ids
     * @return array<int, int>
     */
    private function statuses(array $ids): array
    {
        $this->statuses = array_intersect_key([$this->worker_id => $this->status()], array_flip($ids));
        $question = pack('V', $this->worker_id) . 'q';
        foreach (array_diff($ids, [$this->worker_id]) as $id) {
            $this->post($id, $question, Protocol::AS_NOTE);
        }
        $until = microtime(true) + self::STATUS_SECONDS;
        while (array_diff_key(array_flip($ids), $this->statuses) !== [] && ($left = $until - microtime(true)) > 0) {
            $this->app->await($left);
        }
        return $this->statuses + array_fill_keys($ids, SWOOLE_WORKER_BUSY);
    }

    private function taskWorkers(): int
    {
        return (int) $this->app->fact('tasks');
    }

    /** The pid of an application process of this server, which the kernel knows by its parent. */
    private static function processAt(string $place, int $master): ?int
    {
        $children = (string) @file_get_contents("/proc/$master/task/$master/children");
        // During a reload the old one may still be there: the newest is the last.
        foreach (array_reverse(preg_split('/\s+/', $children, -1, PREG_SPLIT_NO_EMPTY)) as $pid) {
            $environment = "\0" . @file_get_contents("/proc/$pid/environ");
            if (str_contains($environment, "\0WSD_APP_PLACE=$place\0")) {
                return (int) $pid;
            }
        }
        return null;
    }

    /** The number of the process that serves a client, in the numbering of `$server->worker_id`. */
    private function workerOf(int $fd, array $info): int
    {
        if ($this->owns($fd)) {
            return $this->worker_id;
        }
        return $info['worker'] * (int) $this->app->fact('processes') + (int) $info['process'];
    }

    private function workers(): int
    {
        return (int) $this->app->fact('worker_num') * (int) $this->app->fact('processes');
    }

    private function signal(string $name): bool
    {
        if ($this->master_pid <= 1) {
            return $this->warn(strtolower($name), 'the server is not running');
        }
        exec("kill -$name " . $this->master_pid, $output, $code);
        return $code === 0;
    }
}
