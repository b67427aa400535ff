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
    /** Resolved at the start, to stay. */
    private const KEPT = ['cache', 'db', 'encrypter', 'events', 'files', 'filesystem', 'hash', 'log', 'queue',
        'router', 'routes', 'translator', 'validator', 'view'];
    /** Never kept, even if a provider resolved them at the start. */
    private const DROPPED = ['request', 'session', 'session.store', 'auth', 'auth.driver', 'auth.password',
        'cookie', 'redirect', 'url', 'Illuminate\Session\Middleware\StartSession'];
    /** Properties of kept services that a request may change. */
    private const CHANGED = [
        'config' => ['items'],
        'events' => ['listeners', 'wildcards', 'wildcardsCache'],
        'view' => ['shared', 'sections', 'sectionStack', 'renderCount'],
        'translator' => ['locale', 'fallback'],
    ];

    /** @var array<string, mixed> the container's properties */
    private array $container;
    /** @var list<array{0: object, 1: array<string, mixed>}> */
    private array $services = [];

    public function __construct(private Application $app)
    {
        foreach (self::KEPT as $name) {
            if ($app->bound($name)) {
                $app->make($name);
            }
        }
        foreach (self::DROPPED as $name) {
            if ($name !== 'request') {
                $app->forgetInstance($name);
            }
        }
        foreach (self::CHANGED as $name => $properties) {
            if ($app->resolved($name)) {
                $service = $app->make($name);
                $this->services[] = [$service, self::read($service, $properties)];
            }
        }
        $this->container = self::read($app, null);
    }

    /** Forgets everything of the last request. */
    public function restore(): void
    {
        self::rollBack($this->app);
        self::write($this->app, $this->container);
        foreach ($this->services as [$service, $properties]) {
            self::write($service, $properties);
        }
        Container::setInstance($this->app);
        Facade::clearResolvedInstances();
    }

    /** A transaction that a request left open must not take the next one's writes. */
    private static function rollBack(Application $app): void
    {
        if (!$app->resolved('db')) {
            return;
        }
        foreach ($app->make('db')->getConnections() as $connection) {
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

    private static function write(object $of, array $values): void
    {
        (function () use ($values): void {
            foreach ($values as $name => $value) {
                $this->$name = $value;
            }
        })->call($of);
    }
}
