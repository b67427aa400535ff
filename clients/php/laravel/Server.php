<?php

declare(strict_types=1);

namespace Wsd\Laravel;

use Hhxsv5\LaravelS\Swoole\Timer\CronJob;
use Illuminate\Container\Container;
use Illuminate\Contracts\Debug\ExceptionHandler;
use Illuminate\Contracts\Foundation\Application;
use Illuminate\Contracts\Http\Kernel as HttpKernel;
use Illuminate\Http\Request as IlluminateRequest;
use Swoole\Http\Request as SwooleRequest;
use Swoole\Http\Response as SwooleResponse;
use Swoole\Lock;
use Swoole\Table;
use Swoole\WebSocket\Server as SwooleServer;
use Symfony\Component\HttpFoundation\Response;
use Wsd\Accept;
use Wsd\App;
use Wsd\Close;
use Wsd\Compression;
use Wsd\MediaType;
use Wsd\Reply;
use Wsd\Request;

/** One application process of a Laravel server: HTTP and WebSocket through the same kernel. */
final class Server extends SwooleServer
{
    /** How often the first process looks whether it may run the timer jobs. */
    private const JOBS_LOOK_MS = 100;

    private Application $laravel;
    private HttpKernel $kernel;
    private Sandbox $sandbox;
    private array $config;
    /** @var list<object> */
    private array $cleaners = [];
    private ?object $handler = null;
    private Tasks $tasks;
    /** Held by the process that runs the timer jobs. */
    private Lock $jobsLock;
    private string $public;
    /** @var array{0: IlluminateRequest, 1: Response}|null a handshake that was let in */
    private ?array $admitted = null;

    public function __construct(private string $base)
    {
        $this->boot();
        $this->config = Settings::of($this->laravel);
        parent::__construct((string) $this->config['listen_ip'], (int) $this->config['listen_port']);
        $this->set($this->config['swoole']);
        $this->tables();
        $this->jobsLock = new Lock();
        $this->tasks = new Tasks($this, $this->config, $this->attempt(...));
        $this->tasks->addProcesses();
    }

    /** LaravelS's swoole_tables: `ws` is $server->wsTable. */
    private function tables(): void
    {
        foreach ((array) ($this->config['swoole_tables'] ?? []) as $name => $wanted) {
            $table = new Table((int) ($wanted['size'] ?? 0));
            foreach ($wanted['column'] ?? [] as $column) {
                $table->column($column['name'], $column['type'], (int) ($column['size'] ?? 0));
            }
            $table->create();
            $this->{$name . 'Table'} = $table;
        }
    }

    /** Serves until wsd says to end; gives the exit code. */
    public function serve(): int
    {
        $this->laravel->instance('swoole', $this);
        foreach ([SwooleServer::class, \Swoole\Http\Server::class, \Swoole\Server::class] as $name) {
            $this->laravel->instance($name, $this);
        }
        $this->sandbox = new Sandbox($this->laravel);
        $this->cleaners = $this->cleaners();
        $this->register('WorkerStart', 'workerstart');
        $this->register('WorkerStop', 'workerstop');
        $this->register('ServerStart', 'start');
        // Before the process is ready, so that one that throws is refused by a reload.
        $this->handler = Settings::build($this->laravel, $this->config);
        if ($this->handler !== null) {
            $this->websocket();
        }
        $this->on('task', fn (SwooleServer $server, int $id, int $from, mixed $data) => $this->tasks->run($data));
        $this->on('finish', fn (SwooleServer $server, int $id, mixed $data) => $this->tasks->finish($data));
        $this->on('pipeMessage', fn (SwooleServer $server, int $from, mixed $data) => $this->tasks->posted($data));
        $this->connectHandlers();
        $this->app->on('request', function (App $app, Request $request, Reply $reply): void {
            $this->page($request, $reply);
        });
        return $this->app->run();
    }

    /** Queues a message for every client of the server. */
    public function broadcast(string $data, int $opcode = WEBSOCKET_OPCODE_TEXT): bool
    {
        return $this->app->broadcast($data, $opcode);
    }

    /** The handler; one for each process. */
    public function handler(): object
    {
        return $this->handler;
    }

    protected function check(): void
    {
    }

    protected function connectHandlers(): void
    {
        $this->handlers['message'] ??= static fn () => null;
        $websocket = isset($this->handlers['open']);
        parent::connectHandlers();
        if ($websocket) {
            $this->app->on('handshake', fn (App $app, Request $request) => $this->admit($request));
            $this->app->on('open', fn (App $app, Request $request) => $this->opened($request));
        }
        $this->jobs();
    }

    private function boot(): void
    {
        // Laravel takes the command line for artisan otherwise.
        $_ENV['APP_RUNNING_IN_CONSOLE'] = $_SERVER['APP_RUNNING_IN_CONSOLE'] = 'false';
        putenv('APP_RUNNING_IN_CONSOLE=false');
        $this->laravel = require $this->base . '/bootstrap/app.php';
        $this->laravel->instance('request', IlluminateRequest::create('http://localhost'));
        $this->kernel = $this->laravel->make(HttpKernel::class);
        $this->kernel->bootstrap();
        $this->public = $this->laravel->make('path.public');
    }

    private function websocket(): void
    {
        $this->on('open', static fn () => null);
        $this->on('message', function (SwooleServer $server, $frame): void {
            $this->attempt(fn () => $this->handler()->onMessage($server, $frame));
        });
        $this->on('close', function (SwooleServer $server, int $fd, int $reactor): void {
            $this->attempt(fn () => $this->handler()->onClose($server, $fd, $reactor));
        });
    }

    /** The upgrade request goes through the kernel; a response that refuses refuses the client. */
    private function admit(Request $request): Accept|\Wsd\Response
    {
        $swoole = SwooleRequest::of($request, $this->port);
        [$illuminate, $response] = $this->handle($request);
        $status = $response->getStatusCode();
        // There need be no route for the path, so "not found" says nothing about the client.
        if ($status >= 300 && $status !== 404 && $status !== 405) {
            $answer = Http::refusal($response);
            $this->complete($illuminate, $response);
            return $answer;
        }
        $fields = Http::cookies($response);
        $subprotocol = '';
        if (method_exists($this->handler(), 'onHandShake')) {
            $own = new SwooleResponse();
            $this->handler()->onHandShake($swoole, $own);
            $said = SwooleResponse::said($own);
            if ($said->status !== 101) {
                $this->complete($illuminate, $response);
                $said->status = max(300, $said->status);
                return $said;
            }
            $subprotocol = $said->header('sec-websocket-protocol') ?? '';
            $fields = [...$fields, ...self::others($said)];
        }
        $this->admitted = [$illuminate, $response];
        return new Accept($subprotocol, $fields);
    }

    /** onOpen, with session and user of the upgrade request at hand. */
    private function opened(Request $request): void
    {
        $swoole = SwooleRequest::of($request, $this->port);
        $this->bindUser($request->fd);
        $this->attempt(fn () => $this->handler()->onOpen($this, $swoole));
        [$illuminate, $response] = $this->admitted ?? [null, null];
        $this->admitted = null;
        if ($illuminate === null) {
            return;
        }
        if ($illuminate->hasSession()) {
            $this->attempt(fn () => $illuminate->session()->save());
        }
        $this->complete($illuminate, $response);
    }

    /** Whoever is signed in at the upgrade is the connection's user (laravels.websocket.bind_user). */
    private function bindUser(int $fd): void
    {
        if (($this->config['websocket']['bind_user'] ?? true) === false || !$this->laravel->bound('auth')) {
            return;
        }
        $this->attempt(function () use ($fd): void {
            $id = $this->laravel->make('auth')->id();
            $id === null || $this->bind($fd, (string) $id);
        });
    }

    private function page(Request $request, Reply $reply): void
    {
        if ($this->config['handle_static'] && ($file = $this->file($request)) !== null) {
            $reply->file($file, 200, [['content-type', MediaType::of($file)]]) || $reply->fail();
            return;
        }
        ob_start();
        try {
            [$illuminate, $response] = $this->handle($request);
        } finally {
            $echoed = (string) ob_get_clean();
        }
        $compression = Compression::of($this->setting, $request);
        Http::send($response, $echoed, $reply, $compression, $request->method === 'HEAD');
        $this->complete($illuminate, $response);
    }

    /** @return array{0: IlluminateRequest, 1: Response} */
    private function handle(Request $request): array
    {
        foreach ($this->config['register_providers'] as $provider) {
            if (class_exists($provider)) {
                $this->laravel->register($provider, true);
            }
        }
        $illuminate = Http::request($request, $this->port, $this->public, $this->setting);
        $illuminate->enableHttpMethodParameterOverride();
        $this->tell('laravels.received_request', $illuminate);
        $response = $this->kernel->handle($illuminate);
        if (($this->config['server'] ?? '') !== '') {
            $response->headers->set('Server', (string) $this->config['server']);
        }
        $this->tell('laravels.generated_response', $illuminate, $response);
        return [$illuminate, $response];
    }

    /** LaravelS's events of a request. */
    private function tell(string $event, object ...$arguments): void
    {
        $events = $this->laravel->make('events');
        if ($events->hasListeners($event)) {
            $events->dispatch($event, [...$arguments, $this->laravel]);
        }
    }

    /** Ends a request: terminable middleware, cleaners, and everything as it was. */
    private function complete(IlluminateRequest $request, Response $response): void
    {
        $this->attempt(fn () => $this->kernel->terminate($request, $response));
        // A route keeps its controller, which may keep the request.
        $route = $request->route();
        if (is_object($route) && property_exists($route, 'controller')) {
            $route->controller = null;
        }
        foreach ($this->cleaners as $cleaner) {
            $this->attempt(fn () => $cleaner->clean($this->laravel, $this->laravel));
        }
        $this->attempt(fn () => $this->sandbox->restore());
    }

    /**
     * The classes of laravels.cleaners, each built once, with LaravelS's two arguments: the
     * application, and a copy of it that has the configuration as it is now.
     *
     * @return list<object>
     */
    private function cleaners(): array
    {
        $snapshot = clone $this->laravel;
        $snapshot->instance('config', clone $this->laravel->make('config'));
        Container::setInstance($this->laravel);
        $cleaners = [];
        foreach ((array) $this->config['cleaners'] as $class) {
            if (!class_exists($class) || !method_exists($class, 'clean')) {
                throw new \RuntimeException("laravels.cleaners: there is no class $class with a method clean");
            }
            $cleaners[] = new $class($this->laravel, $snapshot);
        }
        return $cleaners;
    }

    /** A file below public/, where handle_static asks for it. */
    private function file(Request $request): ?string
    {
        if ($request->method !== 'GET' && $request->method !== 'HEAD') {
            return null;
        }
        $path = realpath($this->public . rawurldecode($request->path()));
        $inside = $path !== false && str_starts_with($path, realpath($this->public) . '/');
        if (!$inside || !is_file($path) || str_ends_with(strtolower($path), '.php')
            || str_starts_with(basename($path), '.')) {
            return null;
        }
        return $path;
    }

    /** Runs the classes of laravels.event_handlers. */
    private function register(string $key, string $event): void
    {
        $classes = (array) ($this->config['event_handlers'][$key] ?? []);
        if ($classes !== []) {
            $this->on($event, function (...$arguments) use ($classes): void {
                foreach ($classes as $class) {
                    $this->attempt(fn () => (new $class())->handle(...$arguments));
                }
            });
        }
    }

    /** LaravelS's timer jobs, in one process of the server: the next one begins when that one has ended. */
    private function jobs(): void
    {
        if (empty($this->config['timer']['enable'])) {
            return;
        }
        $this->app->timers->add(self::JOBS_LOOK_MS, function (int $id): void {
            if ($this->worker_id !== 0 || !$this->jobsLock->trylock()) {
                $this->worker_id === 0 || $this->app->timers->clear($id);
                return;
            }
            $this->app->timers->clear($id);
            foreach ($this->config['timer']['jobs'] as $entry) {
                // Of a job that cannot run, the others know nothing.
                $this->attempt(fn () => $this->job($entry));
            }
        }, true);
    }

    /** @param class-string|array{0: class-string, 1?: array{0: int, 1?: bool}} $entry of laravels.timer.jobs */
    private function job(string|array $entry): void
    {
        [$class, $arguments] = is_array($entry) ? [$entry[0], [$entry[1] ?? []]] : [$entry, []];
        $job = new $class(...$arguments);
        if (!$job instanceof CronJob) {
            throw new \InvalidArgumentException("laravels.timer.jobs: $class is no " . CronJob::class);
        }
        if ((int) $job->interval() < 1) {
            throw new \InvalidArgumentException("laravels.timer.jobs: $class has no interval");
        }
        $run = fn () => $this->attempt(fn () => $job->run());
        $job->setTimerId($this->app->timers->add((int) $job->interval(), $run, true));
        if ($job->isImmediate()) {
            $run();
        }
    }

    /** What throws is reported by Laravel, and the connection stays: LaravelS's rule. */
    private function attempt(callable $call): void
    {
        try {
            $call();
        } catch (\Throwable $error) {
            try {
                $this->laravel->make(ExceptionHandler::class)->report($error);
            } catch (\Throwable $second) {
                fwrite(STDERR, "$error\nand reporting it: $second\n");
            }
        }
    }
}
