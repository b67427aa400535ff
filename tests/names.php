<?php

// Reads docs/names.json, and writes a line for each name that the code and the table tell differently.

require __DIR__ . '/../clients/php/autoload.php';

use Swoole\{Http, WebSocket};

/** A name of a table: what stands in backticks, or a word of the first column. */
function names(string $cell): array
{
    preg_match_all('/`([^`]+)`/', $cell, $found);
    return $found[1] ?: array_map('trim', explode(',', preg_replace('/ \(.*\)/', '', $cell)));
}

/** Whether a class has a member of that name. */
function has(string $class, string $name): bool
{
    return method_exists($class, $name) || property_exists($class, $name) || defined("$class::$name");
}

function is_there(string $name, array $classes): bool
{
    if (preg_match('/^(\w+)\(\)$/', $name, $found)) {
        $methods = array_filter($classes, fn (string $class): bool => method_exists($class, $found[1]));
        return $methods !== [] || function_exists($found[1]);
    }
    if (preg_match('/^\$\w+->(\w+)$/', $name, $found)) {
        $name = $found[1];
    }
    if (preg_match('/^(\\\\?[\w\\\\]+)::(\w+)$/', $name, $found)) {
        $of = array_filter($classes, fn (string $class): bool => str_ends_with($class, "\\$found[1]"));
        return has(current($of) ?: $found[1], $found[2]);
    }
    $of = array_filter($classes, fn (string $class): bool => has($class, $name) || str_ends_with($class, "\\$name"));
    return $of !== [] || class_exists($name) || function_exists($name) || defined($name);
}

/** What set() says of a key. */
function said(string $key): string
{
    try {
        $settings = new Wsd\SwooleSettings([$key => 1], '127.0.0.1', 1, SWOOLE_SOCK_TCP);
        return implode("\n", $settings->notices);
    } catch (RuntimeException $refused) {
        return $refused->getMessage();
    }
}

$faults = [];
$fault = function (string $what) use (&$faults): void {
    $faults[] = $what;
};
$tables = [];
foreach (json_decode(file_get_contents(__DIR__ . '/../docs/names.json'), true) as $table) {
    foreach ($table['rows'] as [$state, $cell]) {
        foreach (names($cell) as $name) {
            $before = $tables[$table['section']][$name] ?? $state;
            // One name may be of a request and of a response.
            ($before === 'absent') === ($state === 'absent') || $fault("$name is there and is not");
            $tables[$table['section']][$name] = $state;
        }
    }
}

$server = new ReflectionClass(WebSocket\Server::class);
$kept = (new ReflectionClass(Swoole\Server::class))->getConstant('KEPT');
$called = [...$server->getConstant('EVENTS'), ...$kept];
$silent = $server->getConstant('SILENT');
$events = array_change_key_case($tables['Events']);
foreach ($events as $event => $state) {
    $is = in_array($event, $state === 'absent' ? $silent : $called, true);
    $is || $fault("the event $event is told as $state");
}
foreach (array_diff([...$called, ...$silent], array_keys($events)) as $event) {
    $fault("the event $event is in no table");
}

$classes = [WebSocket\Server::class];
foreach ($tables['Methods'] as $name => $state) {
    $words = preg_split('/ of | /', $name);
    if (preg_match('/[\\\\…(]|^any/', $name) || str_contains($name, 'count(')) {
        continue;
    }
    is_there($words[0], $classes) === ($state !== 'absent') || $fault("the method $name is told as $state");
}
foreach ($server->getMethods(ReflectionMethod::IS_PUBLIC) as $method) {
    $name = $method->getName();
    $old = ['connection_info', 'connection_list', 'wsd', 'clients', 'leaving'];
    if (!isset($tables['Methods'][$name]) && !str_starts_with($name, '__') && !in_array($name, $old, true)) {
        $fault("the method $name is in no table");
    }
}

$http = [Http\Request::class, Http\Response::class, WebSocket\Frame::class, WebSocket\CloseFrame::class,
    Swoole\Http\Cookie::class];
$sections = ['Names' => [Swoole\Runtime::class], 'Shared memory and processes' => [],
    'Requests and responses' => $http];
foreach ($sections as $section => $of) {
    foreach ($tables[$section] as $name => $state) {
        // PHP's own functions are there, and say that they cannot know.
        if (preg_match('/…|\(string\)|_uploaded_file|SIMPLE_MODE/', $name)) {
            continue;
        }
        // Swoole's Response has a property named as the method that is not there.
        $state === 'absent' && property_exists(Http\Response::class, $name) && $name = "$name()";
        is_there($name, $of) === ($state !== 'absent') || $fault("$name is told as $state");
    }
}

foreach ($tables['Settings'] as $key => $state) {
    if (!preg_match('/^[a-z_]+$/', $key)) {
        continue;
    }
    $said = said($key);
    if (str_contains($said, 'there is no') || (str_contains($said, 'does not apply') && $state !== 'absent')) {
        $fault("the setting $key is told as $state, and set() says: $said");
    }
}
foreach ((new ReflectionClass(Swoole\Constant::class))->getConstants() as $constant => $key) {
    if (str_starts_with($constant, 'OPTION_') && !isset($tables['Settings'][$key]) && said($key) === '') {
        $fault("the setting $key is in no table");
    }
}
echo implode("\n", $faults), $faults === [] ? '' : "\n";
