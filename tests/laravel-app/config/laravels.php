<?php

return [
    'server' => 'todo',
    'handle_static' => true,
    'cleaners' => [
        \Hhxsv5\LaravelS\Illuminate\Cleaners\SessionCleaner::class,
        \Hhxsv5\LaravelS\Illuminate\Cleaners\AuthCleaner::class,
        \Hhxsv5\LaravelS\Illuminate\Cleaners\JWTCleaner::class,
        \Hhxsv5\LaravelS\Illuminate\Cleaners\ZiggyCleaner::class,
        \Hhxsv5\LaravelS\Illuminate\Cleaners\LaravelAdminCleaner::class,
        \App\Cleaners\VisitsCleaner::class,
    ],
    'websocket' => [
        'enable' => true,
        'handler' => env('HANDLER', \App\Services\ChatService::class),
    ],
    'swoole_tables' => [
        'ws' => [
            'size' => 64,
            'column' => [['name' => 'value', 'type' => \Swoole\Table::TYPE_INT, 'size' => 8]],
        ],
    ],
    // What costs a process more is for the test of it.
    'processes' => env('TASKS', false) ? ['echo' => ['class' => \App\Processes\EchoProcess::class]] : [],
    'timer' => [
        'enable' => env('TASKS', false),
        // The first one cannot run, since it has no interval.
        'jobs' => [\App\Jobs\SetJob::class, [\App\Jobs\SetJob::class, [30, true]], \App\Jobs\CountJob::class],
    ],
    'swoole' => [
        'http_compression' => true,
        'task_worker_num' => env('TASKS', false) ? 1 : 0,
        'heartbeat_idle_time' => 600,
        'heartbeat_check_interval' => 60,
    ],
];
