<?php

return [
    'defaults' => ['guard' => 'token', 'passwords' => 'users'],
    'guards' => ['token' => ['driver' => 'token', 'provider' => null]],
    'providers' => [],
    'passwords' => [],
];
