<?php

declare(strict_types=1);

namespace Swoole\Http;

use Wsd\SwooleErrors;

/** A cookie of a response, set part by part: for Response::setCookie(). */
class Cookie
{
    private const SEPARATORS = ",; \t\r\n\013\014";
    /** The first second of the year 10000, which no date of a cookie can say. */
    private const NO_DATE = 253402300800;

    private ?array $parts = null;

    public function __construct(bool $encode = true)
    {
        $this->clear($encode);
    }

    /** @internal the line that Set-Cookie has, null with a warning where it cannot be */
    public static function line(self $cookie): ?string
    {
        if ($cookie->parts === null) {
            SwooleErrors::$last = SWOOLE_ERROR_HTTP_COOKIE_UNAVAILABLE;
            return null;
        }
        ['name' => $name, 'value' => $value, 'encode' => $encode, 'expires' => $expires] = $cookie->parts;
        $fault = self::fault($cookie->parts);
        if ($fault !== null) {
            trigger_error("Swoole\\Http\\Response::cookie(): $fault", E_USER_WARNING);
            return null;
        }
        if ($value === '') {
            $line = "$name=deleted; expires=" . self::date(1) . '; Max-Age=0';
        } else {
            $line = "$name=" . ($encode ? urlencode($value) : $value);
            if ($expires > 0) {
                $line .= '; expires=' . self::date($expires) . '; Max-Age=' . max(0, $expires - time());
            }
        }
        return $line . self::attributes($cookie->parts);
    }

    public function withName(string $name): self
    {
        return $this->with('name', $name);
    }

    public function withValue(?string $value = ''): self
    {
        return $this->with('value', (string) $value);
    }

    public function withExpires(int $expires = 0): self
    {
        return $this->with('expires', $expires);
    }

    public function withPath(?string $path = '/'): self
    {
        return $this->with('path', (string) $path);
    }

    public function withDomain(?string $domain = ''): self
    {
        return $this->with('domain', (string) $domain);
    }

    public function withSecure(bool $secure = false): self
    {
        return $this->with('secure', $secure);
    }

    public function withHttpOnly(bool $httpOnly = false): self
    {
        return $this->with('httpOnly', $httpOnly);
    }

    public function withSameSite(?string $sameSite = ''): self
    {
        return $this->with('sameSite', (string) $sameSite);
    }

    public function withPriority(?string $priority = ''): self
    {
        return $this->with('priority', (string) $priority);
    }

    public function withPartitioned(bool $partitioned = false): self
    {
        return $this->with('partitioned', $partitioned);
    }

    public function toArray(): array
    {
        return $this->parts ?? [];
    }

    public function toString(): string|false
    {
        return self::line($this) ?? false;
    }

    public function reset(): void
    {
        if ($this->parts === null) {
            SwooleErrors::$last = SWOOLE_ERROR_HTTP_COOKIE_UNAVAILABLE;
            return;
        }
        $this->clear(true);
    }

    private function clear(bool $encode): void
    {
        $this->parts = [
            'name' => '', 'value' => '', 'path' => '', 'domain' => '', 'sameSite' => '', 'priority' => '',
            'encode' => $encode, 'expires' => 0, 'secure' => false, 'httpOnly' => false, 'partitioned' => false,
        ];
    }

    private function with(string $part, string|int|bool $value): self
    {
        if ($this->parts === null) {
            throw new \Error('Swoole\Http\Cookie is not initialized');
        }
        $this->parts[$part] = $value;
        return $this;
    }

    /** Why a cookie cannot be said, null where it can. */
    private static function fault(array $parts): ?string
    {
        $bad = fn (string $part, string $more = ''): bool => strpbrk($parts[$part], self::SEPARATORS . $more) !== false;
        $list = '",", ";", " ", "\t", "\r", "\n", "\013", or "\014"';
        return match (true) {
            $parts['name'] === '' => 'The name cannot be empty',
            $bad('name', '=') => "The name cannot contain \"=\", $list",
            !$parts['encode'] && $bad('value') => "The value cannot contain $list",
            $parts['value'] !== '' && $parts['expires'] >= self::NO_DATE
                => 'The expires cannot have a year greater than 9999',
            $bad('path') => "The path option cannot contain $list",
            $bad('domain') => "The domain option cannot contain $list",
            default => null,
        };
    }

    private static function attributes(array $parts): string
    {
        return ($parts['path'] !== '' ? "; path={$parts['path']}" : '')
            . ($parts['domain'] !== '' ? "; domain={$parts['domain']}" : '')
            . ($parts['secure'] ? '; secure' : '')
            . ($parts['httpOnly'] ? '; HttpOnly' : '')
            . ($parts['sameSite'] !== '' ? "; SameSite={$parts['sameSite']}" : '')
            . ($parts['priority'] !== '' ? "; Priority={$parts['priority']}" : '')
            . ($parts['partitioned'] ? '; Partitioned' : '');
    }

    private static function date(int $time): string
    {
        return gmdate('D, d-M-Y H:i:s', $time) . ' GMT';
    }
}
