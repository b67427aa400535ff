<?php

declare(strict_types=1);

// Loaded once at the start: Swoole's constants, and the loader of Swoole's functions and classes.
// Where the real extension is, its names are used and nothing is defined here.
if (!extension_loaded('swoole') && !extension_loaded('openswoole') && !class_exists('Wsd\SwooleNames', false)) {
    require __DIR__ . '/constants.php';
    require __DIR__ . '/../src/SwooleNames.php';
    Wsd\SwooleNames::register();
}
// By name of its file: to look for a class is what Swoole's functions wait for.
require_once __DIR__ . '/../src/Preamble.php';
Wsd\Preamble::begin();
