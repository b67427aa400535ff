<?php

declare(strict_types=1);

namespace Wsd;

/** How a connection ended. */
final class Close
{
    /**
     * @param int    $code   RFC 6455 section 7.4; 1005 no code given, 1006 no close frame
     * @param string $by     "client", "server" or "nobody"
     * @param string $cause  the name as it stands in wsd's log, e.g. "pong_timeout"
     */
    public function __construct(
        public readonly int $code,
        public readonly string $reason,
        public readonly string $by,
        public readonly string $cause,
    ) {
    }
}
