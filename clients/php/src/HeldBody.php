<?php

declare(strict_types=1);

namespace Wsd;

/** A long body of a request, which the worker holds until the request is answered: read in parts. */
final class HeldBody
{
    private ?string $whole = null;

    /** @internal */
    public function __construct(private App $app, private int $id, public readonly int $length)
    {
    }

    /** @return \Generator<int, string> the body in parts of at most 256 KiB */
    public function parts(): \Generator
    {
        for ($at = 0; $at < $this->length; $at += strlen($part)) {
            $part = $this->app->readHeld($this->id, $at);
            if ($part === '') {
                throw new \RuntimeException('the body of this request is gone: the request was answered');
            }
            yield $part;
        }
    }

    /** All of it at once, which takes as much memory as the body is long. */
    public function whole(): string
    {
        if ($this->whole === null) {
            $whole = '';
            foreach ($this->parts() as $part) {
                $whole .= $part;
            }
            $this->whole = $whole;
        }
        return $this->whole;
    }
}
