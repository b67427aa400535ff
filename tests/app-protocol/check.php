<?php

// Checks the PHP client against the golden vectors: run by tests/app/names.rs.

require __DIR__ . '/../../clients/php/autoload.php';

use Wsd\{Channel, Protocol};

$golden = json_decode(file_get_contents(__DIR__ . '/frames.json'), true);
$equal = function (string $what, mixed $is, mixed $ought) {
    if ($is !== $ought) {
        fwrite(STDERR, "$what: " . var_export($is, true) . ' is not ' . var_export($ought, true) . "\n");
        exit(1);
    }
};
[$ours, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
$channel = new Channel($ours);
foreach ($golden['frames'] as $vector) {
    ['kind' => $kind, 'flags' => $flags, 'code' => $code, 'id' => $id, 'fd' => $fd] = $vector;
    $payload = hex2bin($vector['payload'] ?? '');
    $wire = Protocol::frame($kind, $flags, $code, $id, $fd, $payload);
    $equal($vector['name'], bin2hex($wire), $vector['wire']);
    fwrite($theirs, hex2bin($vector['wire']));
    while (($frame = $channel->next()) === null) {
        $channel->read();
    }
    foreach (compact('kind', 'flags', 'code', 'id', 'fd', 'payload') as $name => $value) {
        $equal("{$vector['name']}: $name", $frame[$name], $value);
    }
}
foreach ($golden['requests'] as $vector) {
    $request = Protocol::request(7, hex2bin($vector['payload']));
    foreach (['method', 'target', 'subprotocol', 'peer', 'client', 'local', 'version', 'fields'] as $name) {
        $equal("a request's $name", $request->$name, $vector[$name]);
    }
    $equal("a request's body", $request->body, $vector['rest']);
}
// Each kind that has a name here has a vector.
$kinds = array_column($golden['frames'], 'kind');
foreach ((new ReflectionClass(Protocol::class))->getReflectionConstants() as $constant) {
    $value = $constant->getValue();
    $isKind = is_int($value) && !preg_match('/^(FLAG|TO|AS|WANT|IN|VERSION|HEADER)/', $constant->getName());
    $isKind && $equal($constant->getName() . ' has a vector', in_array($value, $kinds, true), true);
}
echo count($golden['frames']), ' frames, ', count($golden['requests']), " requests\n";
