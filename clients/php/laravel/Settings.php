<?php

declare(strict_types=1);

namespace Wsd\Laravel;

use Illuminate\Contracts\Foundation\Application;
use Wsd\Nearest;
use Wsd\SwooleSettings;

/** config/laravels.php over the defaults, and what wsd is given for it. */
final class Settings
{
    /** Keys of LaravelS that have no counterpart, with what to do instead. */
    private const NOT_HERE = [
        'sockets' => 'more ports: name more addresses in wsd.listen',
        'inotify_reload' => 'reload on change: run `php bin/laravels reload` from your watcher',
    ];

    /** Keys of laravels.event_handlers whose classes are run. */
    private const CALLED = ['ServerStart', 'WorkerStart', 'WorkerStop'];

    /** Keys of LaravelS besides those of the defaults. */
    private const OTHERS = ['processes', 'swoole_tables', 'events', 'server', 'enable_gzip',
        'enable_coroutine_runtime', 'destroy_controllers'];

    /** @return array<string, mixed> the user's keys over the defaults */
    public static function of(Application $app): array
    {
        $defaults = require __DIR__ . '/resources/laravels.php';
        return array_replace_recursive($defaults, (array) $app['config']->get('laravels', []));
    }

    /**
     * The class that handles WebSockets, loaded; null where they are not enabled.
     *
     * A class that does not load ends a process before it is ready, so that a reload fails and the
     * old code goes on, and no client meets it.
     */
    public static function handler(array $config): ?string
    {
        if (empty($config['websocket']['enable'])) {
            return null;
        }
        $class = $config['websocket']['handler'] ?? null;
        if (!is_string($class) || $class === '') {
            throw new \RuntimeException('laravels.websocket.enable is on, but its handler names no class');
        }
        if (!class_exists($class)) {
            throw new \RuntimeException("laravels.websocket.handler: there is no class $class");
        }
        foreach (['onOpen', 'onMessage', 'onClose'] as $method) {
            if (!method_exists($class, $method)) {
                throw new \RuntimeException("laravels.websocket.handler: $class has no method $method");
            }
        }
        return $class;
    }

    /**
     * The handler, built by the container; null where WebSockets are not enabled.
     *
     * A constructor that throws costs a start or a reload, and no client.
     */
    public static function build(Application $app, array $config): ?object
    {
        $class = self::handler($config);
        try {
            return $class === null ? null : $app->make($class);
        } catch (\Throwable $error) {
            throw new \RuntimeException("laravels.websocket.handler: $class cannot be built: {$error->getMessage()}"
                . " in {$error->getFile()} on line {$error->getLine()}", 0, $error);
        }
    }

    /** @return list<string> what the user should know of keys that do nothing */
    public static function notices(array $config): array
    {
        $notices = [];
        $defaults = require __DIR__ . '/resources/laravels.php';
        $known = [...array_keys($defaults), ...array_keys(self::NOT_HERE), ...self::OTHERS];
        foreach (array_diff(array_keys($config), $known) as $key) {
            $notices[] = 'laravels.' . Nearest::sentence((string) $key, $known);
        }
        foreach (array_diff(array_keys((array) ($config['event_handlers'] ?? [])), self::CALLED) as $key) {
            $notices[] = "laravels.event_handlers.$key is never called: see docs/laravel.md";
        }
        foreach (self::NOT_HERE as $key => $instead) {
            $value = $config[$key] ?? [];
            if (is_array($value) && array_key_exists('enable', $value) ? $value['enable'] : $value) {
                $notices[] = "laravels.$key does not apply here. $instead";
            }
        }
        return $notices;
    }

    public static function swoole(array $config): SwooleSettings
    {
        $set = $config['swoole'];
        $set['worker_num'] = (int) ($set['worker_num'] ?? 0) ?: 2 * SwooleSettings::cpus();
        foreach (['dispatch_mode', 'open_websocket_protocol'] as $key) {
            unset($set[$key]);
        }
        $ip = (string) $config['listen_ip'];
        $loopback = in_array($ip, ['127.0.0.1', 'localhost', '::1'], true) || str_starts_with($ip, '/');
        // Who listens on loopback has a proxy on this machine before it.
        $proxies = $loopback ? ['trusted_proxies' => ['127.0.0.0/8', '::1/128', 'unix:']] : [];
        $set['wsd'] = ($config['wsd'] ?? []) + ($set['wsd'] ?? []) + $proxies + [
            'allowed_origins' => ['same-host'],
            'allowed_hosts' => self::hosts((string) config('app.url')),
        ];
        $processes = count(Tasks::processes($config));
        $set['wsd'] += $processes > 0 ? ['app.user_processes' => $processes] : [];
        return new SwooleSettings($set, $ip, (int) $config['listen_port'], (int) $config['socket_type']);
    }

    /**
     * By which names the application may be called: those of this machine, and that of APP_URL.
     *
     * @return list<string>
     */
    private static function hosts(string $url): array
    {
        $host = parse_url($url, PHP_URL_HOST);
        return is_string($host) && $host !== '' ? ['auto', $host] : ['auto'];
    }
}
