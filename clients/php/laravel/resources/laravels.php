<?php

// The server. Keys and .env names are LaravelS's; docs/laravel.md says what differs.

return [
    'listen_ip' => env('LARAVELS_LISTEN_IP', '127.0.0.1'),
    'listen_port' => env('LARAVELS_LISTEN_PORT', 5200),
    'socket_type' => defined('SWOOLE_SOCK_TCP') ? SWOOLE_SOCK_TCP : 1,
    // Serve the files below public/ too. nginx does it better.
    'handle_static' => env('LARAVELS_HANDLE_STATIC', false),
    'laravel_base_path' => env('LARAVEL_BASE_PATH', base_path()),
    // Classes to run when a process starts and stops.
    'event_handlers' => [],
    'websocket' => [
        'enable' => false,
        // 'handler' => \App\Services\WebSocketService::class,
        // Who is signed in at the upgrade is the connection's user: app('swoole')->pushUid($user->id, …).
        'bind_user' => true,
    ],
    'timer' => [
        'enable' => env('LARAVELS_TIMER', false),
        'jobs' => [],
    ],
    // Providers to register anew before each request.
    'register_providers' => [],
    // Classes with clean($app) to run after each request, besides the usual.
    'cleaners' => [],
    'swoole' => [
        'daemonize' => env('LARAVELS_DAEMONIZE', false),
        // PHP processes; 0 is two for each core.
        'worker_num' => env('LARAVELS_WORKER_NUM', 0),
        // A process is replaced after so many requests and events.
        'max_request' => env('LARAVELS_MAX_REQUEST', 100000),
        'pid_file' => storage_path('laravels.pid'),
        'log_level' => env('LARAVELS_LOG_LEVEL', 4),
        'log_file' => storage_path(sprintf('logs/swoole-%s.log', date('Y-m'))),
        'socket_buffer_size' => 8 * 1024 * 1024,
        'package_max_length' => 4 * 1024 * 1024,
        'max_wait_time' => 60,
    ],
    // Keys of wsd itself: see `wsd check` and etc/wsd.toml.
    'wsd' => [
        // Which pages may connect: 'same-host', origins such as 'https://example.com', or '*'.
        // 'allowed_origins' => ['same-host'],
    ],
];
