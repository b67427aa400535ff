<?php

declare(strict_types=1);

namespace Wsd\Laravel;

/** Ends what makes a body for a client that is gone. */
final class ClientGone extends \Exception
{
}
