<?php

declare(strict_types=1);

namespace Wsd;

/** What the keys of Swoole's set() are in wsd: docs/swoole.md has the same as a table. */
final class SwooleSettings
{
    /** Keys that need nothing, since wsd is always so or has no such part. */
    private const NOTHING_TO_DO = [
        'enable_reuse_port', 'dispatch_mode', 'reload_async', 'enable_coroutine', 'hook_flags',
        'open_websocket_protocol', 'open_http_protocol', 'enable_unsafe_event', 'task_ipc_mode',
        'task_tmpdir', 'task_enable_coroutine', 'max_coroutine', 'send_yield',
        'discard_timeout_request', 'http_parse_cookie', 'http_parse_post', 'http_parse_files',
        'upload_tmp_dir', 'log_date_format', 'log_date_with_microseconds', 'input_buffer_size',
        'single_thread', 'open_cpu_affinity', 'display_errors', 'max_request_grace', 'http_compression',
        'http_compression_level', 'compression_level', 'http_gzip_level', 'compression_min_length',
        'http_compression_min_length', 'compression_types', 'http_compression_types',
        'open_websocket_close_frame', 'open_websocket_ping_frame', 'open_websocket_pong_frame',
        'enable_static_handler', 'document_root', 'static_handler_locations', 'http_index_files',
        'task_use_object', 'task_object', 'wsd', 'watch',
        'buffer_output_size', 'output_buffer_size', 'enable_delay_receive', 'tcp_keepinterval',
        'tcp_keepcount', 'socket_type', 'process_prefix',
    ];
    /** Of these, those a script may rely on: they are said when set. */
    private const SAID = [
        'enable_coroutine' => 'there are no coroutines: a handler blocks its own process only',
        'enable_delay_receive' => 'connections are read at once',
        'enable_unsafe_event' => 'onConnect is called for WebSockets, onClose always',
        'log_date_format' => 'lines begin with the time in the format of RFC 3339',
    ];
    /** Keys that a port of listen() has for itself. */
    private const OF_A_PORT = ['open_websocket_protocol', 'open_http_protocol'];
    private const LOG_LEVELS = ['debug', 'trace', 'info', 'info', 'warn', 'error', 'error'];

    /** @var array<string, scalar|list<string>> keys of wsd */
    public array $wsd = [];
    /** @var list<string> what the user should know */
    public array $notices = [];

    /** @param array<string, mixed> $set what was given to set() */
    public function __construct(private array $set, string $host, int $port, int $type)
    {
        $this->refuseTls($set, $type);
        $this->listen($host, $port, $type);
        $this->processes();
        $this->liveness();
        $this->limits();
        $this->log();
        $this->rest();
        foreach ((array) ($set['wsd'] ?? []) as $key => $value) {
            $this->wsd[$key] = $value;
        }
        // A page opened from disk has the origin `null`, and a script is first tried with one.
        $this->wsd['allowed_origins'] ??= ['same-host', 'local-null'];
        $this->sayTheRest();
    }

    public static function cpus(): int
    {
        $list = @file_get_contents('/proc/self/status');
        if ($list !== false && preg_match('/^Cpus_allowed_list:\s*(\S+)/m', $list, $found)) {
            $count = 0;
            foreach (explode(',', $found[1]) as $range) {
                [$first, $last] = explode('-', $range) + [1 => null];
                $count += (int) ($last ?? $first) - (int) $first + 1;
            }
            return max(1, $count);
        }
        return 1;
    }

    /** A size as Swoole takes one: a number, or as in php.ini with K, M or G behind it (here also MiB). */
    public static function bytes(mixed $size): int
    {
        $unit = is_string($size) && preg_match('/\d\s*([kmg])(i?b)?\s*$/i', $size, $found) ? $found[1] : '';
        return (int) $size << ['' => 0, 'k' => 10, 'm' => 20, 'g' => 30][strtolower($unit)];
    }

    /** @param array<string, mixed> $set */
    private function refuseTls(array $set, int $type): void
    {
        foreach (array_keys($set) as $key) {
            if (str_starts_with((string) $key, 'ssl_')) {
                throw new \RuntimeException("wsd does no TLS itself yet ($key): put nginx before it");
            }
        }
        if (($type & SWOOLE_SSL) !== 0) {
            throw new \RuntimeException('wsd does no TLS itself yet (SWOOLE_SSL): put nginx before it');
        }
    }

    /**
     * One more address to listen on.
     *
     * @param array<string, mixed> $set what was given to set() of that port
     */
    public function add(string $host, int $port, int $type, array $set = []): void
    {
        $this->refuseTls($set, $type);
        $this->listen($host, $port, $type);
        $swooles = self::keysOfSwoole();
        foreach ($set as $key => $value) {
            $same = array_key_exists($key, $this->set) && $this->set[$key] === $value;
            if ($same || in_array($key, self::OF_A_PORT, true)) {
                continue;
            }
            $this->notices[] = "listen($host:$port): " . (in_array($key, $swooles, true)
                ? "$key: a port has none of its own, and it is ignored; the server's set() may have one for all"
                : Nearest::sentence((string) $key, [...self::OF_A_PORT, ...$swooles]));
        }
    }

    private function listen(string $host, int $port, int $type): void
    {
        if (($type & ~SWOOLE_SSL) === SWOOLE_SOCK_UNIX_STREAM || str_starts_with($host, '/')) {
            $this->wsd['listen'][] = "unix:$host";
            return;
        }
        $address = match (true) {
            $host === 'localhost' => '127.0.0.1',
            $host === '::1', $host === '::', str_contains($host, ':') => "[$host]",
            default => $host,
        };
        $this->wsd['listen'][] = "$address:$port";
    }

    /** Swoole's workers run PHP; wsd's serve sockets, and each has PHP processes of its own. */
    private function processes(): void
    {
        $cpus = self::cpus();
        $php = max(1, (int) ($this->set['worker_num'] ?? $cpus));
        $most = max(1, min($php, (int) ($this->set['reactor_num'] ?? $cpus), 256));
        // As many processes as were asked for, where that leaves half of the socket workers or more.
        $even = max(array_filter(range(1, $most), fn (int $workers): bool => $php % $workers === 0));
        $workers = 2 * $even >= $most ? $even : $most;
        $this->wsd['worker_num'] = $workers;
        $this->wsd['app.processes'] = (int) ceil($php / $workers);
        $this->wsd['app.task_processes'] = max(0, (int) ($this->set['task_worker_num'] ?? 0));
        // Swoole ends no handler for lasting.
        $this->wsd['app.event_timeout'] = 0;
        $this->copy([
            'task_max_request' => 'app.task_max_requests',
            'max_request' => 'app.max_requests',
            'user' => 'user',
            'group' => 'group',
        ]);
        if (isset($this->set['max_wait_time'])) {
            $this->wsd['max_wait_time'] = $this->set['max_wait_time'] . 's';
        }
    }

    /** Swoole closes nobody who is silent unless told so. */
    private function liveness(): void
    {
        $idle = (int) ($this->set['heartbeat_idle_time'] ?? 0);
        $interval = (int) ($this->set['heartbeat_check_interval'] ?? 0);
        $idle = $idle ?: 2 * $interval;
        $interval = $interval ?: max(1, intdiv($idle, 2));
        $this->wsd['heartbeat_idle_time'] = $idle . 's';
        $this->wsd['heartbeat_check_interval'] = ($idle > 0 ? $interval : 0) . 's';
    }

    private function limits(): void
    {
        $this->copy([
            'max_conn' => 'max_connection',
            'max_connection' => 'max_connection',
            'backlog' => 'backlog',
            'open_tcp_nodelay' => 'tcp_nodelay',
            'websocket_compression' => 'websocket_compression',
            'max_concurrency' => 'http_requests_max',
        ]);
        if (isset($this->set['package_max_length'])) {
            $this->wsd['package_max_length'] = self::bytes($this->set['package_max_length']);
        }
        if (!empty($this->set['send_yield'])) {
            // A push then waits for a client that reads slowly.
            $this->wsd['buffer_policy'] = 'drop';
        }
        // Swoole takes a head of 64 KiB, whatever its lines are.
        $this->wsd['head_bytes_max'] = $this->wsd['head_line_max'] = 64 << 10;
        // One limit for messages and bodies: an upload may be longer in Swoole.
        if (isset($this->set['upload_max_filesize'])) {
            $uploads = self::bytes($this->set['upload_max_filesize']);
            $this->wsd['package_max_length'] = max((int) ($this->wsd['package_max_length'] ?? 2 << 20), $uploads);
        }
        $this->wsd['buffer_output_size'] = self::bytes($this->set['socket_buffer_size'] ?? 8 << 20);
        if (!empty($this->set['open_tcp_keepalive'])) {
            $this->wsd['tcp_keepalive'] = ($this->set['tcp_keepidle'] ?? 3600) . 's';
        }
        if (!empty($this->set['tcp_user_timeout'])) {
            $this->wsd['tcp_user_timeout'] = $this->set['tcp_user_timeout'] . 'ms';
        }
        if (!empty($this->set['websocket_subprotocol'])) {
            $this->wsd['subprotocols'] = [(string) $this->set['websocket_subprotocol']];
        }
    }

    private function log(): void
    {
        $this->copy(['daemonize' => 'daemonize', 'pid_file' => 'pid_file', 'log_file' => 'log_file']);
        if (isset($this->set['log_level'])) {
            $this->wsd['log_level'] = self::LOG_LEVELS[(int) $this->set['log_level']] ?? 'info';
        }
    }

    /** Two scripts on one machine must not share a directory for pid file and control socket. */
    private function rest(): void
    {
        $named = $this->set['runtime_dir'] ?? (getenv('WSD_RUNTIME_DIR') ?: null);
        $this->wsd['runtime_dir'] = $named ?? RuntimeDir::of($this->wsd['listen'][0]);
    }

    private function sayTheRest(): void
    {
        $known = [
            'worker_num', 'reactor_num', 'max_request', 'user', 'group', 'max_wait_time',
            'task_worker_num', 'task_max_request', 'heartbeat_idle_time', 'heartbeat_check_interval', 'max_conn',
            'max_connection', 'max_concurrency', 'package_max_length', 'backlog', 'open_tcp_nodelay',
            'websocket_compression', 'socket_buffer_size', 'open_tcp_keepalive', 'tcp_keepidle',
            'tcp_user_timeout', 'websocket_subprotocol', 'upload_max_filesize', 'daemonize', 'pid_file', 'log_file',
            'log_level', 'runtime_dir', ...self::NOTHING_TO_DO,
        ];
        $swooles = self::keysOfSwoole();
        foreach ($this->set as $key => $value) {
            $key = (string) $key;
            if (isset(self::SAID[$key])) {
                $value && $this->notices[] = "$key: " . self::SAID[$key];
            } elseif (!in_array($key, $known, true)) {
                $this->notices[] = in_array($key, $swooles, true)
                    ? "$key: does not apply here and is ignored"
                    : Nearest::sentence($key, [...$known, ...$swooles]);
            }
        }
    }

    /** @return list<string> every key that Swoole's set() takes */
    private static function keysOfSwoole(): array
    {
        $constants = (new \ReflectionClass(\Swoole\Constant::class))->getConstants();
        $isOption = fn (string $name) => str_starts_with($name, 'OPTION_');
        return array_values(array_filter($constants, $isOption, ARRAY_FILTER_USE_KEY));
    }

    /** @param array<string, string> $keys */
    private function copy(array $keys): void
    {
        foreach ($keys as $swoole => $wsd) {
            if (isset($this->set[$swoole])) {
                $value = $this->set[$swoole];
                $this->wsd[$wsd] = in_array($wsd, ['daemonize', 'tcp_nodelay', 'websocket_compression'], true)
                    ? (bool) $value
                    : $value;
            }
        }
    }
}
