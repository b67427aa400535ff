<?php

return [
    'defaults' => ['guard' => 'token', 'passwords' => 'users'],
    'guards' => ['token' => ['driver' => 'query']],
    'providers' => [],
    'passwords' => [],
];
