<?php

declare(strict_types=1);

namespace Wsd;

/** Pairs of names and values as PHP reads them, with Swoole's word on those that are too many. */
final class Variables
{
    /** @return array<array-key, mixed> */
    public static function parse(string $pairs): array
    {
        $most = (int) ini_get('max_input_vars');
        if ($most > 0 && substr_count($pairs, '&') >= $most) {
            self::say("Input variables exceeded $most. To increase the limit change max_input_vars in php.ini.");
            @parse_str($pairs, $variables);
            return $variables;
        }
        parse_str($pairs, $variables);
        return $variables;
    }

    /** Says something of a request in the log, as Swoole does. */
    public static function say(string $why): void
    {
        $time = date('Y-m-d H:i:s');
        file_put_contents('php://stdout', "[$time *" . getmypid() . "]\tWARNING\t$why\n");
    }
}
