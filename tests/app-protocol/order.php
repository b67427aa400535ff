<?php

// Plays the worker for a process that gets many messages or requests at once, and checks the order of what the
// process says: run by tests/app/names.rs. The process is this script as well.

require __DIR__ . '/../../clients/php/autoload.php';

use Wsd\{App, Channel, Protocol, Reply, Request, Response};

const CLIENT = 1 << 39;
const EXISTS_ANSWER = 66;

if (App::isAppProcess()) {
    $app = new App();
    $app->on('message', function (App $app, int $fd, string $data): void {
        [$number, $word] = explode(' ', $data);
        match ($word) {
            'ask' => $app->exists($fd),
            'ask-later' => $app->timers->add(0, fn () => $app->exists($fd), false),
            'stop' => $app->stop(),
            'stop-later' => $app->timers->add(0, fn () => $app->stop(), false),
            'slow' => usleep(2000),
            default => null,
        };
        $app->push($fd, $word === 'long' ? str_pad($number, 4000) : $number);
        $word === 'throw' && throw new RuntimeException('as told');
    });
    $app->on('request', function (App $app, Request $request, Reply $reply): ?Response {
        match (substr($request->target, 1)) {
            'ask' => $app->exists(CLIENT),
            'later' => $app->timers->add(0, fn () => $reply->send(new Response()), false) && $reply->later(),
            'throw' => throw new RuntimeException('as told'),
            'stop' => $app->stop(),
            'exit' => exit,
            'odd' => $reply->send(new Response(200, '', [['x-count', 5]])),
            'parts' => $reply->write('part'),
            default => null,
        };
        $reply->isBegun() && $reply->end();
        return $reply->isOpen() && !$reply->isKept() ? new Response() : null;
    });
    exit($app->run());
}

/**
 * Sends messages, 128 at once as a worker does, and others right behind the answer to a question.
 *
 * @param array<int, string> $words of those messages whose word is not `echo`
 * @param string $events the function that makes them
 * @param int $pause microseconds for which the worker now and then reads nothing
 * @return list<array> the frames that the process sends after READY, without END
 */
function play(int $count, array $words, string $events = 'messages', int $pause = 0): array
{
    [$ours, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
    $pipes = [0 => ['null'], 1 => STDERR, 2 => ['null'], 3 => $theirs];
    $process = proc_open([PHP_BINARY, __FILE__], $pipes, $none, null, ['WSD_APP_FD' => '3'] + getenv());
    fclose($theirs);
    $channel = new Channel($ours);
    $hello = ['push_free' => 1 << 30, 'push_max' => 1 << 20, 'frame_max' => 1 << 20];
    $channel->write(Protocol::frame(Protocol::HELLO, code: Protocol::VERSION, payload: json_encode($hello)));
    [$said, $sent] = [[], 0];
    do {
        $frame = next_of($channel);
        $said[] = $frame;
        count($said) % 200 === 0 && usleep($pause);
        if ($frame['kind'] === Protocol::EXISTS) {
            $channel->write(Protocol::frame(EXISTS_ANSWER, code: 1, id: $frame['id']));
        }
        if (in_array($frame['kind'], [Protocol::READY, Protocol::EXISTS], true) || is_done($frame, $sent)) {
            $channel->write($events($sent + 1, min($sent + 128, $count), $words));
            $sent = min($sent + 128, $count);
        }
        if (is_done($frame, $count)) {
            $channel->write(Protocol::frame(Protocol::SHUTDOWN));
        }
    } while ($frame['kind'] !== Protocol::END);
    proc_close($process);
    claim('it tells that it answers requests together', ($said[0]['fd'] & Protocol::GATHERS) !== 0);
    return array_slice($said, 1, -1);
}

function next_of(Channel $channel): array
{
    $channel->flush();
    while (($frame = $channel->next()) === null) {
        $channel->read() || exit("the process is gone\n");
    }
    return $frame;
}

function is_done(array $frame, int $id): bool
{
    return $frame['kind'] === Protocol::DONE && $frame['id'] === $id;
}

/** Messages of as many clients. */
function messages(int $first, int $last, array $words): string
{
    $frames = '';
    for ($id = $first; $id <= $last; $id++) {
        $text = "$id " . ($words[$id] ?? 'echo');
        $frames .= Protocol::frame(Protocol::MESSAGE, 0, App::TEXT, $id, CLIENT + $id, $text);
    }
    return $frames;
}

/** Requests of as many visitors, sixteen of which may be answered together. */
function requests(int $first, int $last, array $words): string
{
    $frames = '';
    for ($id = $first; $id <= $last; $id++) {
        $head = ['GET', '/' . ($words[$id] ?? ''), '', '', '', '', 'HTTP/1.1'];
        $payload = implode('', array_map(Protocol::string(...), $head)) . Protocol::fields([]);
        $flags = $id % 16 === 0 || $id === $last ? 0 : Protocol::FLAG_TOGETHER;
        $frames .= Protocol::frame(Protocol::REQUEST, $flags, 0, $id, CLIENT + $id, $payload);
    }
    return $frames;
}

/** As requests(), where each is answered alone. */
function requests_alone(int $first, int $last, array $words): string
{
    $frames = '';
    for ($id = $first; $id <= $last; $id++) {
        $frames .= requests($id, $id, $words);
    }
    return $frames;
}

function claim(string $what, bool $true): void
{
    $true || exit("not so: $what\n");
}

/** @return list<array> the frames of a kind */
function of(int $kind, array $said): array
{
    return array_values(array_filter($said, fn (array $frame): bool => $frame['kind'] === $kind));
}

$words = [200 => 'ask', 300 => 'throw', 400 => 'ask-later', 500 => 'ask', 501 => 'ask', 777 => 'throw'];
$said = play(1000, $words);
$pushed = array_map(fn (array $frame): int => (int) $frame['payload'], of(Protocol::PUSH, $said));
claim('messages are handled in order, also those that come while an answer is waited for', $pushed === range(1, 1000));
[$begun, $done] = [0, 0];
foreach ($said as $frame) {
    if ($frame['kind'] === Protocol::PUSH) {
        claim('no event sends anything after its DONE', $begun++ >= $done);
    } elseif ($frame['kind'] === Protocol::DONE) {
        claim('DONE comes behind all of its event, and before what the next event sends', $frame['id'] === $begun);
        $done = $frame['id'];
    } elseif ($frame['kind'] === Protocol::EXISTS) {
        claim('DONE of all events before comes before a question', $done === $begun);
    }
}
claim('an event that fails ends its client', count(of(Protocol::DISCONNECT, $said)) === 2);
claim('DONE is said of the last event', $done === 1000);

$said = play(1000, [900 => 'stop']);
claim('after an event that stops the process, none is begun', count(of(Protocol::PUSH, $said)) === 900);
claim('that event is done', end($said)['kind'] === Protocol::DONE && end($said)['id'] === 900);

$said = play(1000, [900 => 'stop-later']);
$begun = count(of(Protocol::PUSH, $said));
claim('after a timer that stops the process, no more than one event is begun', $begun <= 901);
claim('all that was begun is done', end($said)['kind'] === Protocol::DONE && end($said)['id'] === $begun);

// A loaded machine may make any event slow, but not all of them.
$after = array_filter(of(Protocol::DONE, play(5000, [1000 => 'slow'])), fn (array $done): bool => $done['id'] > 1000);
claim('one slow event does not end the gathering for long', count($after) < 4000);
$done = of(Protocol::DONE, play(5000, array_fill(1, 5000, 'long'), pause: 3000));
claim('a worker that reads slowly does not end the gathering', count($done) < 4000);

// Requests: the first that leaves is answered first, and what a process that dies may have begun is known.
$ids = fn (array $frames): array => array_column($frames, 'id');
$done = of(Protocol::DONE, play(1000, [], 'requests_alone'));
claim('a request that goes alone has a DONE of its own', $ids($done) === range(1, 1000));
foreach (play(1000, [], 'requests_alone') as $at => $frame) {
    $kind = $at % 2 === 0 ? Protocol::RESPONSE : Protocol::DONE;
    claim('DONE of a request comes before the next one is begun', $frame['kind'] === $kind);
}
$words = [200 => 'ask', 300 => 'throw', 400 => 'ask', 401 => 'later', 500 => 'later', 600 => 'odd'];
$said = play(1000, $words, 'requests');
$answered = array_values(array_diff($ids(of(Protocol::RESPONSE, $said)), [401, 500]));
claim('requests are answered in order', $answered === array_values(array_diff(range(1, 1000), [401, 500])));
claim('each is answered once', count(of(Protocol::RESPONSE, $said)) === 1000);
$status = array_column(of(Protocol::RESPONSE, $said), 'code', 'id');
claim('a request that fails is status 500, and those beside it are not', array_keys($status, 500) === [300, 600]);
[$begun, $done] = [0, 0];
foreach ($said as $frame) {
    if ($frame['kind'] === Protocol::RESPONSE && !in_array($frame['id'], [401, 500], true)) {
        $isTold = intdiv($frame['id'] - 1, 16) <= intdiv($done, 16);
        claim('DONE of a group comes before the next group is begun', $isTold);
        $begun = $frame['id'];
    } elseif ($frame['kind'] === Protocol::DONE) {
        $isLater = ($frame['flags'] & Protocol::FLAG_LATER) !== 0;
        claim('DONE that says later is of that request alone', $isLater === in_array($frame['id'], [401, 500], true));
        claim('DONE comes behind the answers', $isLater || $frame['id'] <= $begun);
        $done = $frame['id'];
    } elseif ($frame['kind'] === Protocol::EXISTS) {
        claim('DONE of all requests before comes before a question', $done === $begun);
    }
}
claim('DONE is said of the last request', $done === 1000);
$done = of(Protocol::DONE, play(5000, [], 'requests'));
claim('quick requests that go together are answered together', count($done) < 3000);
$said = play(1000, [900 => 'stop'], 'requests');
claim('after a request that stops the process, none is begun', count(of(Protocol::RESPONSE, $said)) === 900);
claim('that request is done', end($said)['kind'] === Protocol::DONE && end($said)['id'] === 900);

$said = play(1000, [900 => 'exit'], 'requests');
$status = array_column(of(Protocol::RESPONSE, $said), 'code', 'id');
claim('a request that ends the script costs itself alone', $status === array_fill(1, 899, 200) + [900 => 500]);
claim('such a request is done', end($said)['kind'] === Protocol::DONE && end($said)['id'] === 900);

$said = play(1000, [900 => 'parts'], 'requests');
$part = array_search(Protocol::BODY, array_column($said, 'kind'), true);
$done = array_filter(array_slice($said, 0, $part), fn (array $frame): bool => is_done($frame, 899));
claim('before a part of an answer, which leaves at once, leaves what was gathered', $done !== []);
echo "in order\n";
