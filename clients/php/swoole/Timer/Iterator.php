<?php

declare(strict_types=1);

namespace Swoole\Timer;

/** Ids of timers. */
class Iterator extends \ArrayIterator
{
}
