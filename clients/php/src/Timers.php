<?php

declare(strict_types=1);

namespace Wsd;

/** Timers of one process, run between events. */
final class Timers
{
    /** @var array<int, array{due: int, period: int, call: callable, count: int, round: int, ms: int}> times in ns */
    private array $timers = [];
    /** The one that runs and was cleared meanwhile: it is still told of, as removed. */
    private ?array $removed = null;
    private int $running = 0;
    private int $round = 0;
    private int $base = 0;
    private \SplMinHeap $heap;
    private int $last = 0;
    private int $pid;
    /** When the next one may be due, in nanoseconds; never later than it is. */
    public int $due = PHP_INT_MAX;

    public function __construct()
    {
        $this->heap = new \SplMinHeap();
        $this->pid = getmypid();
    }

    /** A process that was forked has none of its parent's. */
    private function forked(): void
    {
        if ($this->pid !== getmypid()) {
            [$this->timers, $this->heap, $this->due] = [[], new \SplMinHeap(), PHP_INT_MAX];
            $this->pid = getmypid();
        }
    }

    /** Calls $call(id) after $ms, and each $ms again where $repeat. */
    public function add(int $ms, callable $call, bool $repeat): int
    {
        $this->forked();
        $id = ++$this->last;
        $due = hrtime(true) + $ms * 1_000_000;
        $this->base = $this->base ?: hrtime(true);
        $this->timers[$id] = [
            'due' => $due,
            'period' => $repeat ? $ms * 1_000_000 : 0,
            'call' => $call,
            'count' => 0,
            'round' => $this->round,
            'ms' => $ms,
        ];
        $this->heap->insert([$due, $id]);
        $this->due = min($this->due, $due);
        return $id;
    }

    public function clear(int $id): bool
    {
        $known = isset($this->timers[$id]);
        if ($known && $id === $this->running) {
            $this->removed = $this->timers[$id];
        }
        unset($this->timers[$id]);
        return $known;
    }

    /** @return array<string, mixed>|null Swoole's words: times in ms, `exec_msec` since the first timer */
    public function info(int $id): ?array
    {
        $removed = $id === $this->running && $this->removed !== null;
        $timer = $removed ? $this->removed : $this->timers[$id] ?? null;
        return $timer === null ? null : [
            'exec_msec' => intdiv($timer['due'] - $this->base, 1_000_000),
            'exec_count' => $timer['count'],
            'interval' => intdiv($timer['period'], 1_000_000),
            'round' => $timer['round'],
            'removed' => $removed,
        ];
    }

    /** @return array{initialized: bool, num: int, round: int} */
    public function stats(): array
    {
        return ['initialized' => $this->last > 0, 'num' => count($this->timers), 'round' => $this->round];
    }

    /** Counts the time of every timer from now on: those of before the server's start begin with it. */
    public function restart(): void
    {
        $this->heap = new \SplMinHeap();
        $this->base = hrtime(true);
        foreach ($this->timers as $id => $timer) {
            $this->timers[$id]['due'] = $this->base + $timer['ms'] * 1_000_000;
            $this->heap->insert([$this->timers[$id]['due'], $id]);
        }
        $this->settle();
    }

    public function exists(int $id): bool
    {
        $this->forked();
        return isset($this->timers[$id]);
    }

    /** @return list<int> */
    public function list(): array
    {
        $this->forked();
        return array_keys($this->timers);
    }

    /** Seconds until the next one is due; null where there is none. */
    public function wait(): ?float
    {
        if ($this->due === PHP_INT_MAX) {
            return null;
        }
        $this->settle();
        return $this->due === PHP_INT_MAX ? null : max(0, $this->due - hrtime(true)) / 1e9;
    }

    /** Runs what is due. Late ticks are skipped, not made up for. */
    public function run(callable $guard): void
    {
        $now = hrtime(true);
        $this->settle();
        $this->round += $this->due <= $now ? 1 : 0;
        while (!$this->heap->isEmpty() && $this->heap->top()[0] <= $now) {
            [$due, $id] = $this->heap->extract();
            $timer = $this->timers[$id] ?? null;
            if ($timer === null || $timer['due'] !== $due) {
                continue;
            }
            if ($timer['period'] > 0) {
                $next = $due + (intdiv($now - $due, $timer['period']) + 1) * $timer['period'];
                $this->timers[$id]['due'] = $next;
                $this->timers[$id]['count']++;
                $this->heap->insert([$next, $id]);
            } else {
                $this->timers[$id]['due'] = 0; // Known until it has run, and not to be run again.
            }
            [$outer, $this->running, $this->removed] = [$this->running, $id, null];
            $guard(fn () => ($timer['call'])($id));
            [$this->running, $this->removed] = [$outer, null];
            if ($timer['period'] === 0) {
                unset($this->timers[$id]);
            }
        }
        $this->settle();
    }

    /** Forgets timers that were cleared, and sees when the next one is due. */
    private function settle(): void
    {
        while (!$this->heap->isEmpty()) {
            [$due, $id] = $this->heap->top();
            if (($this->timers[$id]['due'] ?? null) === $due) {
                $this->due = $due;
                return;
            }
            $this->heap->extract();
        }
        $this->due = PHP_INT_MAX;
    }
}
