<?php

declare(strict_types=1);

namespace Wsd;

/** Lets a client in, with a subprotocol it offered and fields for the 101. */
final class Accept
{
    /** @param list<array{0: string, 1: string}> $fields header fields to add to the 101 */
    public function __construct(public string $subprotocol = '', public array $fields = [])
    {
    }
}
