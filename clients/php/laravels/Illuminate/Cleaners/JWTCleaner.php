<?php

namespace Hhxsv5\LaravelS\Illuminate\Cleaners;

/** For tymon/jwt-auth. */
class JWTCleaner extends Forgetting
{
    protected $instances = ['tymon.jwt', 'tymon.jwt.auth', 'tymon.jwt.parser',
        'tymon.jwt.claim.factory', 'tymon.jwt.manager'];
}
