<?php

declare(strict_types=1);

namespace Wsd;

/** Says of a method that Swoole's manual names and this package has not got where to read why. */
trait Missing
{
    public function __call(string $name, array $arguments): never
    {
        static::__callStatic($name, $arguments);
    }

    public static function __callStatic(string $name, array $arguments): never
    {
        throw new \BadMethodCallException(static::class . "::$name() does not exist under wsd: see docs/swoole.md");
    }
}
