<?php

return [
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
    'swoole' => [
        'heartbeat_idle_time' => 600,
        'heartbeat_check_interval' => 60,
    ],
];
