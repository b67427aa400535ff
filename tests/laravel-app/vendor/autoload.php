<?php

// Debian's Laravel (php-laravel-framework) in the place of composer's vendor directory.

require_once 'Illuminate/autoload.php';
require_once getenv('TEST_WSD_PACKAGE') ?: __DIR__ . '/../../../clients/php/autoload.php';

spl_autoload_register(static function (string $class): void {
    if (str_starts_with($class, 'App\\')) {
        $file = __DIR__ . '/../app/' . strtr(substr($class, 4), '\\', '/') . '.php';
        is_file($file) && require $file;
    }
});
