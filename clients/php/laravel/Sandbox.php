<?php

declare(strict_types=1);

namespace Wsd\Laravel;

use Illuminate\Container\Container;
use Illuminate\Contracts\Foundation\Application;
use Illuminate\Support\Facades\Facade;

/**
 * Puts an application back to how it was after its start, so that no request sees another's.
 *
 * What the container holds is remembered once and set again after each request, which drops what
 * was resolved meanwhile: session, guards, the application's own singletons. Services that are
 * costly and hold nothing of a request are resolved before, and stay.
 */
final class Sandbox
{
    /** Resolved at the start, to stay: costly, or set up by providers (Auth::extend and the like). */
    private const KEPT = ['auth', 'cache', 'cookie', 'db', 'encrypter', 'events', 'files', 'filesystem', 'hash',
        'log', 'queue', 'router', 'routes', 'session', 'translator', 'url', 'validator', 'view'];
    /** Never kept, even if a provider resolved them at the start. */
    private const DROPPED = ['session.store', 'auth.driver', 'redirect',
        'Illuminate\Session\Middleware\StartSession'];
    /** Properties of kept services that a request may change, put back to what they were. */
    private const CHANGED = [
        'config' => ['items'],
        'events' => ['listeners', 'wildcards', 'wildcardsCache'],
        'view' => ['shared', 'sections', 'sectionStack', 'renderCount'],
        'translator' => ['locale', 'fallback'],
        'url' => ['forcedRoot', 'forceScheme', 'cachedRoot', 'cachedScheme'],
    ];
    /** Properties of kept services that belong to one request, emptied. */
    private const EMPTIED = [
        'auth' => ['guards'],
        'session' => ['drivers'],
        'cookie' => ['queued'],
    ];

    /** @var list<\Closure(): void> each puts the properties of one object back */
    private array $backs = [];
    /** The manager of database connections, which is kept. */
    private ?object $database;

    public function __construct(private Application $app)
    {
        foreach (self::KEPT as $name) {
            if ($app->bound($name)) {
                $app->make($name);
            }
        }
        foreach (self::DROPPED as $name) {
            $app->forgetInstance($name);
        }
        foreach (self::CHANGED as $name => $properties) {
            if ($app->resolved($name)) {
                $service = $app->make($name);
                $this->backs[] = self::back($service, self::read($service, $properties));
            }
        }
        foreach (self::EMPTIED as $name => $properties) {
            if ($app->resolved($name)) {
                $this->backs[] = self::back($app->make($name), array_fill_keys($properties, []));
            }
        }
        $this->database = $app->resolved('db') ? $app->make('db') : null;
        array_unshift($this->backs, self::back($app, self::read($app, null)));
        $this->restore();
    }

    /** Forgets everything of the last request. */
    public function restore(): void
    {
        $this->rollBack();
        foreach ($this->backs as $back) {
            $back();
        }
        Container::setInstance($this->app);
        Facade::clearResolvedInstances();
    }

    /** A transaction that a request left open must not take the next one's writes. */
    private function rollBack(): void
    {
        foreach ($this->database?->getConnections() ?? [] as $connection) {
            if ($connection->transactionLevel() > 0) {
                $connection->rollBack(0);
            }
        }
    }

    /** @param list<string>|null $names null for all */
    private static function read(object $of, ?array $names): array
    {
        $all = (fn (): array => get_object_vars($this))->call($of);
        return $names === null ? $all : array_intersect_key($all, array_flip($names));
    }

    /** Built once, since every request runs it. */
    private static function back(object $of, array $values): \Closure
    {
        return \Closure::bind(function () use ($values): void {
            foreach ($values as $name => $value) {
                $this->$name = $value;
            }
        }, $of, $of);
    }
}
