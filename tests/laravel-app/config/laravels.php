<?php

return [
    'handle_static' => true,
    'websocket' => [
        'enable' => true,
        'handler' => env('HANDLER', \App\Services\ChatService::class),
    ],
    'swoole' => [
        'heartbeat_idle_time' => 600,
        'heartbeat_check_interval' => 60,
    ],
];
