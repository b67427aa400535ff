<?php

declare(strict_types=1);

namespace Swoole\Http;

use Wsd\App;
use Wsd\Compression;
use Wsd\MediaType;
use Wsd\Reply;
use Wsd\SwooleErrors;

// Named here, PHP compiles calls of them without a look at the namespace at run time.
use function count, is_array, is_string, preg_match, rtrim, strlen, strpbrk, strtolower;

/** The answer to a plain HTTP request, or to a handshake in onHandshake. */
#[\AllowDynamicProperties]
class Response
{
    use \Wsd\Missing;

    /** Fields that Swoole writes by itself unless they are set; set to nothing, they are left out. */
    private const OF_THE_SERVER = ['server', 'connection', 'date', 'content-length', 'content-type',
        'transfer-encoding', 'content-encoding'];
    /** The longest name of a field that Swoole takes. */
    private const NAME_BYTES_MAX = 127;
    /** Names of fields that are remembered: every page has the same few. */
    private const NAMES_MAX = 128;

    public $fd = 0;
    public $socket;
    public $header;
    public $cookie;
    public $trailer;
    private int $statusCode = 200;
    private bool $statusSaid = false;
    private string $body = '';
    private bool $ended = false;
    /** The longest body that goes out in one piece. */
    private int $most = PHP_INT_MAX;
    private ?Compression $compression = null;
    /** What answers a plain request; a handshake's answer is sent when its handler returns. */
    private ?Reply $reply = null;
    /** @var array<string, string> names of fields as they are sent, by what they were said as */
    private static array $names = [];
    /** @var array<int, array{Reply, int, ?Compression}> detached answers, by connection */
    private static array $detached = [];

    /** @internal */
    public static function of(int $fd): self
    {
        $self = new self();
        $self->fd = $fd;
        return $self;
    }

    /** @internal the answer to a plain request, which lives until it is ended */
    public static function answering(Reply $reply, int $fd, int $most, ?Compression $compression): self
    {
        $self = new self();
        $self->fd = $fd;
        $self->most = $most;
        $self->compression = $compression;
        $self->reply = $reply->later();
        return $self;
    }

    /**
     * The answer that another Response of that number was detached from, in this process.
     *
     * @param \Swoole\Server|array|int $server a server, with the number as $fd, or the number itself
     */
    public static function create(\Swoole\Server|array|int $server = -1, int $fd = -1): self|false
    {
        $fd = is_int($server) ? $server : $fd;
        [$reply, $most, $compression] = self::$detached[$fd] ?? [null, 0, null];
        unset(self::$detached[$fd]);
        if ($reply === null || !$reply->isOpen()) {
            trigger_error("Swoole\\Http\\Response::create(): parameter \$2 ($fd) must be valid connection "
                . 'session_id of a response that this process has detached', E_USER_WARNING);
            return false;
        }
        return self::answering($reply, $fd, $most, $compression);
    }

    /** @internal what is to be sent */
    public static function said(self $response): \Wsd\Response
    {
        $fields = [];
        foreach ((array) $response->header as $name => $values) {
            $name = strtolower((string) $name);
            foreach (is_array($values) ? $values : [$values] as $value) {
                $text = rtrim((string) $value, " \t\r\n\0\v\f");
                $left = $value === null || ($text === '' && in_array($name, self::OF_THE_SERVER, true));
                // A line break within a value would end the field and begin another.
                if (!$left && strpbrk($text, "\r\n\0") === false) {
                    $fields[] = [$name, $text];
                }
            }
        }
        foreach ((array) $response->cookie as $line) {
            if (is_string($line) && strpbrk($line, "\r\n\0") === false) {
                $fields[] = ['set-cookie', $line];
            }
        }
        return new \Wsd\Response($response->statusCode, $response->body, $fields);
    }

    public function header(string $key, $value, bool $format = true): bool
    {
        if ($this->ended && !$this->open('header')) {
            return false;
        }
        $shown = self::$names[$key] ?? self::named($key);
        if ($shown === null) {
            return false;
        }
        if ($this->header !== null) {
            // Of names that differ in their case only, the last counts.
            foreach ((array) $this->header as $name => $_) {
                if (strcasecmp((string) $name, $key) === 0) {
                    unset($this->header[$name]);
                }
            }
        }
        $this->header[$format ? $shown : $key] = $value;
        return true;
    }

    /** The form in which a field's name is sent; null, perhaps with a warning, where it is no name. */
    private static function named(string $key): ?string
    {
        if (strlen($key) > self::NAME_BYTES_MAX) {
            trigger_error('Swoole\Http\Response::header(): header key is too long', E_USER_WARNING);
            return null;
        }
        if ($key === '' || preg_match('/[\x00-\x20\x7f:]/', $key)) {
            return null;
        }
        $shown = ucwords(strtolower($key), '-');
        if (count(self::$names) < self::NAMES_MAX) {
            self::$names[$key] = $shown;
        }
        return $shown;
    }

    public function setHeader(string $key, $value, bool $format = true): bool
    {
        return $this->header($key, $value, $format);
    }

    public function initHeader(): bool
    {
        if (!$this->open('initHeader')) {
            return false;
        }
        $this->header ??= [];
        $this->cookie ??= [];
        $this->trailer ??= [];
        return true;
    }

    public function status(int $code, string $reason = ''): bool
    {
        if (!$this->open('status')) {
            return false;
        }
        // What is no status is told to the worker as such: 0 would leave the request to the server.
        $this->statusCode = $code > 0 && $code <= 0xffff ? $code : 0xffff;
        $this->statusSaid = true;
        return true;
    }

    public function setStatusCode(int $code, string $reason = ''): bool
    {
        return $this->status($code, $reason);
    }

    public function cookie(
        $name_or_object,
        $value = '',
        $expires = 0,
        $path = '',
        $domain = '',
        $secure = false,
        $httponly = false,
        $samesite = '',
        $priority = '',
        $partitioned = false,
    ): bool {
        return $this->addCookie(true, func_get_args());
    }

    public function setCookie(mixed ...$arguments): bool
    {
        return $this->cookie(...$arguments);
    }

    public function rawcookie(
        $name_or_object,
        $value = '',
        $expires = 0,
        $path = '',
        $domain = '',
        $secure = false,
        $httponly = false,
        $samesite = '',
        $priority = '',
        $partitioned = false,
    ): bool {
        return $this->addCookie(false, func_get_args());
    }

    public function setRawCookie(mixed ...$arguments): bool
    {
        return $this->rawcookie(...$arguments);
    }

    public function write(string $content): bool
    {
        if (!$this->open('write')) {
            return false;
        }
        $begun = $this->reply === null || $this->begin();
        if ($content === '') {
            SwooleErrors::$last = SWOOLE_ERROR_NO_PAYLOAD;
            trigger_error('Swoole\Http\Response::write(): the data sent must not be empty', E_USER_WARNING);
            return false;
        }
        if ($this->reply !== null) {
            return $begun && $this->reply->write($content);
        }
        $this->body .= $content;
        return true;
    }

    public function end(?string $content = null): bool
    {
        if ($this->ended && !$this->open('end')) {
            return false;
        }
        $this->body .= (string) $content;
        if (strlen($this->body) > $this->most && !$this->reply?->isBegun()) {
            [$length, $this->body] = [strlen($this->body), ''];
            SwooleErrors::$last = SWOOLE_ERROR_DATA_LENGTH_TOO_LARGE;
            // Swoole says this in its log, and not as PHP's warning.
            swoole_error_log(SWOOLE_LOG_WARNING, "the length of data [$length] exceeds buffer_output_size"
                . "[$this->most]: use sendfile() or write()");
            return false;
        }
        $this->ended = true;
        if ($this->reply === null) {
            return true;
        }
        $reply = $this->reply;
        $this->reply = null;
        if ($reply->isBegun()) {
            return $reply->end($this->body);
        }
        $response = $this->typed();
        $this->compression?->apply($response);
        return $reply->send($response);
    }

    public function sendfile(string $filename, int $offset = 0, int $length = 0): bool
    {
        if (!$this->open('sendfile')) {
            return false;
        }
        $fault = $this->reply?->isBegun()
            ? "can't use sendfile when HTTP chunk is enabled"
            : self::fault($filename, $offset, $length);
        if ($fault !== null) {
            trigger_error("Swoole\\Http\\Response::sendfile(): $fault", E_USER_WARNING);
            return false;
        }
        if (self::said($this)->header('content-type') === null) {
            $this->header('Content-Type', MediaType::of($filename));
        }
        $length = $length > 0 ? $length : null;
        if ($this->reply === null) {
            $bytes = file_get_contents($filename, false, null, $offset, $length);
            return $bytes !== false && $this->end($bytes);
        }
        $this->ended = true;
        [$reply, $this->reply] = [$this->reply, null];
        return $reply->file($filename, $this->statusCode, self::said($this)->fields, $offset, $length);
    }

    public function redirect(string $location, int $http_code = 302): bool
    {
        return $this->status($http_code) && $this->header('Location', $location) && $this->end();
    }

    /** Lets go of the answer: create() of the same number ends it. */
    public function detach(): bool
    {
        if (!$this->open('detach') || $this->reply === null) {
            return false;
        }
        self::$detached = array_filter(self::$detached, fn (array $kept): bool => $kept[0]->isWritable());
        self::$detached[$this->fd] = [$this->reply, $this->most, $this->compression];
        [$this->reply, $this->ended] = [null, true];
        return true;
    }

    /** Closes the connection. An answer that was not begun is status 500, and one that was breaks off. */
    public function close(): bool
    {
        if ($this->reply?->isOpen()) {
            [$reply, $this->reply, $this->ended] = [$this->reply, null, true];
            $reply->fail();
        }
        $app = App::running();
        if ($this->fd === 0 || $app?->exists($this->fd) !== true) {
            return false;
        }
        $app->close($this->fd);
        return true;
    }

    public function isWritable(): bool
    {
        return !$this->ended && ($this->reply?->isWritable() ?? true);
    }

    /** An answer that nobody can end any more is ended as Swoole does. */
    public function __destruct()
    {
        if ($this->reply?->isOpen()) {
            $this->statusCode = $this->statusSaid ? $this->statusCode : 500;
            $this->end();
        }
    }

    /** Of no interest to who dumps a response: what is to be sent. */
    public function __debugInfo(): array
    {
        $own = ['statusCode', 'statusSaid', 'body', 'ended', 'reply', 'most', 'compression'];
        return array_diff_key(get_object_vars($this), array_flip($own));
    }

    /** Sends status and fields before the first part of the body. */
    private function begin(): bool
    {
        $said = $this->typed();
        return $this->reply->isBegun() || $this->reply->begin($said->status, $said->fields);
    }

    private function typed(): \Wsd\Response
    {
        $said = self::said($this);
        foreach ($said->fields as [$name]) {
            if ($name === 'content-type') {
                return $said;
            }
        }
        // Set to nothing, it is not added.
        if (!array_key_exists('content-type', array_change_key_case((array) $this->header))) {
            $said->fields[] = ['content-type', 'text/html'];
        }
        return $said;
    }

    private function open(string $method): bool
    {
        if ($this->ended) {
            SwooleErrors::$last = SWOOLE_ERROR_HTTP_CONTEXT_UNAVAILABLE;
            trigger_error("Swoole\\Http\\Response::$method(): http response is unavailable "
                . '(maybe it has been ended or detached)', E_USER_WARNING);
        }
        return !$this->ended;
    }

    /** @param array<int|string, mixed> $arguments a Cookie, or its parts in Swoole's order */
    private function addCookie(bool $encode, array $arguments): bool
    {
        if (!$this->open('cookie')) {
            return false;
        }
        $cookie = $arguments[0];
        if (!is_string($cookie) && !$cookie instanceof Cookie) {
            $why = 'The first argument must be a string or a Http\Cookie object';
            trigger_error("Swoole\\Http\\Response::cookie(): $why", E_USER_WARNING);
            return false;
        }
        if (is_string($cookie)) {
            $part = fn (int $at) => $arguments[$at] ?? null;
            $cookie = (new Cookie($encode))
                ->withName($cookie)
                ->withValue((string) $part(1))
                ->withExpires((int) $part(2))
                ->withPath((string) $part(3))
                ->withDomain((string) $part(4))
                ->withSecure((bool) $part(5))
                ->withHttpOnly((bool) $part(6))
                ->withSameSite((string) $part(7))
                ->withPriority((string) $part(8))
                ->withPartitioned((bool) $part(9));
        }
        $line = Cookie::line($cookie);
        if ($line === null) {
            return false;
        }
        $this->cookie[] = $line;
        return true;
    }

    /** Why that part of that file cannot be sent, null where it can. */
    private static function fault(string $filename, int $offset, int $length): ?string
    {
        if ($filename === '') {
            return 'file name is empty';
        }
        foreach (['offset' => $offset, 'length' => $length] as $name => $value) {
            if ($value < 0) {
                return "parameter \$$name" . "[$value] must be greater than or equal to 0";
            }
        }
        $type = @filetype($filename);
        $real = $type === 'link' ? @filetype((string) realpath($filename)) : $type;
        if ($real === false) {
            return "stat($filename) failed";
        }
        if ($real !== 'file') {
            SwooleErrors::$last = SWOOLE_ERROR_SERVER_IS_NOT_REGULAR_FILE;
            return "parameter \$file[$filename] given is not a regular file";
        }
        if (!is_readable($filename)) {
            return "open($filename) failed";
        }
        clearstatcache(true, $filename);
        $size = filesize($filename);
        return match (true) {
            $offset > $size => "parameter \$offset[$offset] exceeds the file size",
            $length > $size - $offset => "parameter \$length[$length] exceeds the file size",
            default => null,
        };
    }
}
