<?php

// Plays the worker for a process that gets many messages at once, and checks the order of what the process
// says: run by tests/app/names.rs. The process is this script as well.

require __DIR__ . '/../../clients/php/autoload.php';

use Wsd\{App, Channel, Protocol};

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
        $app->push($fd, $number);
        $word === 'throw' && throw new RuntimeException('as told');
    });
    exit($app->run());
}

/**
 * Sends messages, 128 at once as a worker does, and others right behind the answer to a question.
 *
 * @param array<int, string> $words of those messages whose word is not `echo`
 * @return list<array> the frames that the process sends after READY, without END
 */
function play(int $count, array $words): array
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
        if ($frame['kind'] === Protocol::EXISTS) {
            $channel->write(Protocol::frame(EXISTS_ANSWER, code: 1, id: $frame['id']));
        }
        if (in_array($frame['kind'], [Protocol::READY, Protocol::EXISTS], true) || is_done($frame, $sent)) {
            $channel->write(messages($sent + 1, min($sent + 128, $count), $words));
            $sent = min($sent + 128, $count);
        }
        if (is_done($frame, $count)) {
            $channel->write(Protocol::frame(Protocol::SHUTDOWN));
        }
    } while ($frame['kind'] !== Protocol::END);
    proc_close($process);
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
echo "in order\n";
