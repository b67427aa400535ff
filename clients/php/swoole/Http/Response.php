<?php

declare(strict_types=1);

namespace Swoole\Http;

/** The answer to a plain HTTP request, or to a handshake in onHandshake. */
#[\AllowDynamicProperties]
class Response
{
    public $fd = 0;
    public $socket;
    public $header;
    public $cookie;
    public $trailer;
    /** @internal */
    public int $statusCode = 200;
    /** @internal @var list<array{0: string, 1: string}> */
    public array $fields = [];
    /** @internal */
    public string $body = '';
    private bool $ended = false;

    public function header(string $key, $value, bool $format = true): bool
    {
        if (!$this->open('header')) {
            return false;
        }
        $name = strtolower($key);
        $this->fields = array_values(array_filter($this->fields, fn ($field) => $field[0] !== $name));
        foreach ((array) $value as $one) {
            $this->fields[] = [$name, self::line((string) $one)];
        }
        $this->header[$key] = $value;
        return true;
    }

    public function setHeader(string $key, $value, bool $format = true): bool
    {
        return $this->header($key, $value, $format);
    }

    public function status(int $code, string $reason = ''): bool
    {
        if (!$this->open('status')) {
            return false;
        }
        $this->statusCode = $code;
        return true;
    }

    public function setStatusCode(int $code, string $reason = ''): bool
    {
        return $this->status($code, $reason);
    }

    public function cookie(
        string $name,
        string $value = '',
        int $expires = 0,
        string $path = '/',
        string $domain = '',
        bool $secure = false,
        bool $httponly = false,
        string $samesite = '',
        string $priority = '',
        bool $partitioned = false,
    ): bool {
        return $this->addCookie($name, urlencode($value), ...array_slice(func_get_args(), 2));
    }

    public function setCookie(string $name, string $value = '', ...$rest): bool
    {
        return $this->cookie($name, $value, ...$rest);
    }

    public function rawcookie(string $name, string $value = '', ...$rest): bool
    {
        return $this->addCookie($name, $value, ...$rest);
    }

    public function setRawCookie(string $name, string $value = '', ...$rest): bool
    {
        return $this->addCookie($name, $value, ...$rest);
    }

    public function write(string $content): bool
    {
        if (!$this->open('write')) {
            return false;
        }
        $this->body .= $content;
        return true;
    }

    public function end(?string $content = null): bool
    {
        if (!$this->open('end')) {
            return false;
        }
        $this->body .= (string) $content;
        $this->ended = true;
        return true;
    }

    public function sendfile(string $filename, int $offset = 0, int $length = 0): bool
    {
        if (!$this->open('sendfile') || !is_readable($filename)) {
            return false;
        }
        $bytes = file_get_contents($filename, false, null, $offset, $length > 0 ? $length : null);
        if ($this->get('content-type') === null) {
            $this->header('content-type', self::type($filename));
        }
        return $bytes !== false && $this->end($bytes);
    }

    public function redirect(string $location, int $code = 302): bool
    {
        return $this->status($code) && $this->header('Location', $location) && $this->end();
    }

    public function isWritable(): bool
    {
        return !$this->ended;
    }

    /** @internal the first field of that name */
    public function get(string $name): ?string
    {
        foreach ($this->fields as [$key, $value]) {
            if ($key === $name) {
                return $value;
            }
        }
        return null;
    }

    private function open(string $method): bool
    {
        if ($this->ended) {
            trigger_error("Swoole\\Http\\Response::$method(): http response is unavailable "
                . '(maybe it has been ended or detached)', E_USER_WARNING);
        }
        return !$this->ended;
    }

    private function addCookie(
        string $name,
        string $value,
        int $expires = 0,
        string $path = '/',
        string $domain = '',
        bool $secure = false,
        bool $httponly = false,
        string $samesite = '',
        string $priority = '',
        bool $partitioned = false,
    ): bool {
        if (!$this->open('cookie')) {
            return false;
        }
        $line = $value === ''
            ? "$name=deleted; expires=" . gmdate('D, d-M-Y H:i:s T', 1)
            : "$name=$value" . ($expires > 0 ? '; expires=' . gmdate('D, d-M-Y H:i:s T', $expires) : '');
        $line .= $path !== '' ? "; path=$path" : '';
        $line .= $domain !== '' ? "; domain=$domain" : '';
        $line .= $secure ? '; secure' : '';
        $line .= $httponly ? '; httponly' : '';
        $line .= $samesite !== '' ? "; samesite=$samesite" : '';
        $line .= $priority !== '' ? "; priority=$priority" : '';
        $line .= $partitioned ? '; partitioned' : '';
        $this->fields[] = ['set-cookie', self::line($line)];
        return true;
    }

    /** A line break in a value would end the field and begin another. */
    private static function line(string $value): string
    {
        return strtr($value, ["\r" => '', "\n" => '', "\0" => '']);
    }

    private static function type(string $filename): string
    {
        return match (strtolower(pathinfo($filename, PATHINFO_EXTENSION))) {
            'html', 'htm' => 'text/html; charset=utf-8',
            'css' => 'text/css',
            'js', 'mjs' => 'text/javascript',
            'json' => 'application/json',
            'txt' => 'text/plain; charset=utf-8',
            'png' => 'image/png',
            'jpg', 'jpeg' => 'image/jpeg',
            'gif' => 'image/gif',
            'svg' => 'image/svg+xml',
            'ico' => 'image/x-icon',
            'woff2' => 'font/woff2',
            default => 'application/octet-stream',
        };
    }
}
