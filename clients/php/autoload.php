<?php

declare(strict_types=1);

/** For use without composer: require this file. */
(static function (): void {
    $prefixes = [
        'Wsd\\Laravel\\' => __DIR__ . '/laravel/',
        'Wsd\\' => __DIR__ . '/src/',
        'GatewayWorker\\' => __DIR__ . '/gatewayworker/',
    ];
    spl_autoload_register(static function (string $class) use ($prefixes): void {
        foreach ($prefixes as $prefix => $directory) {
            if (str_starts_with($class, $prefix)) {
                $file = $directory . strtr(substr($class, strlen($prefix)), '\\', '/') . '.php';
                if (is_file($file)) {
                    require $file;
                }
                return;
            }
        }
    });
    require_once __DIR__ . '/swoole/names.php';
})();
