<?php

declare(strict_types=1);

namespace Swoole\Http;

use Wsd\Multipart;
use Wsd\Request as WsdRequest;
use Wsd\Variables;

// Named here, PHP compiles calls of them without a look at the namespace at run time.
use function in_array, microtime, strpos, strrchr, substr, urldecode;

/** The request that opened a connection, or a plain HTTP request, as Swoole shows it. */
#[\AllowDynamicProperties]
class Request
{
    use \Wsd\Missing;

    private const LAST_COUNTS = ['host', 'user-agent', 'accept', 'content-type', 'content-length', 'authorization',
        'connection', 'accept-encoding'];

    public $fd = 0;
    public $streamId = 0;
    public $header;
    public $server;
    public $cookie;
    public $get;
    public $files;
    public $post;
    public $tmpfiles;
    private string $body = '';
    private string $raw = '';
    private ?WsdRequest $from = null;
    private bool $completed = true;
    /** @var array<string, mixed> what was given to set() */
    private array $setting = [];

    /**
     * @internal
     * @param array<string, mixed> $setting what was given to set()
     */
    public static function of(WsdRequest $request, int $port, array $setting = []): self
    {
        $self = new self();
        $self->fd = $request->fd;
        $self->from = $request;
        $self->setting = $setting;
        $self->header = [];
        $self->server = [];
        $self->read($request);
        [$local, $localPort] = $request->localAddress();
        $self->server['server_port'] = $localPort ?: $port;
        $self->server['remote_port'] = (int) substr(strrchr($request->peer, ':') ?: '', 1);
        $self->server['server_addr'] = $local;
        $self->server['remote_addr'] = $request->client !== '' ? $request->client : $request->peerAddress()[0];
        $self->server['master_time'] = $self->server['request_time'];
        return $self;
    }

    /**
     * A request to be read by parse(), from wherever its bytes come.
     *
     * @param array<string, mixed> $options parse_cookie, parse_body, parse_files, upload_tmp_dir
     */
    public static function create(array $options = []): self
    {
        $self = new self();
        $self->completed = false;
        $options = array_change_key_case($options);
        $self->setting = [
            'http_parse_cookie' => $options['parse_cookie'] ?? true,
            'http_parse_post' => $options['parse_body'] ?? true,
            'http_parse_files' => $options['parse_files'] ?? true,
            'upload_tmp_dir' => $options['upload_tmp_dir'] ?? null,
        ];
        $self->header = [];
        $self->server = [];
        return $self;
    }

    /** Takes more of a request that create() began: how many bytes were of it, false after its end. */
    public function parse(string $data): int|false
    {
        if ($this->completed) {
            return false;
        }
        $before = strlen($this->raw);
        $this->raw .= $data;
        $end = strpos($this->raw, "\r\n\r\n");
        if ($end === false) {
            $this->server['request_method'] = explode(' ', $this->raw, 2)[0];
            return strlen($data);
        }
        $request = self::head(substr($this->raw, 0, $end));
        if ($request === null) {
            $this->raw = substr($this->raw, 0, $before);
            return 0;
        }
        $length = (int) ($request->header('content-length') ?? 0);
        $body = substr($this->raw, $end + 4, $length);
        if (strlen($body) < $length) {
            return strlen($data);
        }
        $this->raw = substr($this->raw, 0, $end + 4 + $length);
        $this->completed = true;
        $this->server = [];
        $this->read(new WsdRequest(0, $request->method, $request->target, '', '', '', '',
            $request->version, $request->fields, $body));
        return strlen($this->raw) - $before;
    }

    public function isCompleted(): bool
    {
        return $this->completed;
    }

    /** The body; a long one is read from the server now, and takes as much memory as it is long. */
    public function rawContent(): string|false
    {
        return $this->from?->isHeld() ? $this->from->body : $this->body;
    }

    public function getContent(): string|false
    {
        return $this->rawContent();
    }

    /** The whole request as bytes. A server's is put together from its parts, as wsd read them. */
    public function getData(): string|false
    {
        if ($this->from === null) {
            return $this->raw;
        }
        $head = "{$this->from->method} {$this->from->target} {$this->from->version}\r\n";
        foreach ($this->from->fields as [$name, $value]) {
            $head .= "$name: $value\r\n";
        }
        return "$head\r\n" . $this->from->body;
    }

    public function getMethod(): string|false
    {
        return $this->server['request_method'] ?? false;
    }

    /** Of no interest to who dumps a request: what it was made of. */
    public function __debugInfo(): array
    {
        return array_diff_key(get_object_vars($this), array_flip(['body', 'raw', 'from', 'completed', 'setting']));
    }

    public function __destruct()
    {
        if ($this->tmpfiles === null) {
            return;
        }
        foreach ((array) $this->tmpfiles as $file) {
            is_string($file) && is_file($file) && unlink($file);
        }
    }

    private static function head(string $head): ?WsdRequest
    {
        $lines = explode("\r\n", $head);
        $line = '~^([!#$%&\'*+.^_`|\~0-9A-Za-z-]+) (\S+) (HTTP/1\.[01])$~';
        if (!preg_match($line, (string) array_shift($lines), $first)) {
            return null;
        }
        $fields = [];
        foreach ($lines as $line) {
            if (!preg_match('/^([^\s:]+):[ \t]*(.*?)[ \t]*$/s', $line, $field)) {
                return null;
            }
            $fields[] = [strtolower($field[1]), $field[2]];
        }
        return new WsdRequest(0, $first[1], $first[2], '', '', '', '', $first[3], $fields, '');
    }

    private function read(WsdRequest $request): void
    {
        // What costs a request here costs every one, so little is called.
        $header = [];
        $cookies = false;
        $parses = $this->setting['http_parse_cookie'] ?? true;
        foreach ($request->fields as [$name, $value]) {
            if ($name === 'cookie' && $parses) {
                $cookies = true;
                continue;
            }
            // A repeated field is a list, as in Swoole 6, but for those of which the last counts.
            $header[$name] = isset($header[$name]) && !in_array($name, self::LAST_COUNTS, true)
                ? [...(array) $header[$name], $value]
                : $value;
        }
        $this->header = $header;
        $this->cookie = $cookies ? ($request->cookies() ?: null) : null;
        $path = $request->target;
        $at = strpos($path, '?');
        if ($at !== false) {
            $query = substr($path, $at + 1);
            $path = substr($path, 0, $at);
            if ($query !== '') {
                $this->get = Variables::parse($query) ?: null;
                $this->server['query_string'] = $query;
            }
        }
        $now = microtime(true);
        $this->server['request_method'] = $request->method;
        $this->server['request_uri'] = $path;
        $this->server['path_info'] = urldecode($path);
        $this->server['request_time'] = (int) $now;
        $this->server['request_time_float'] = $now;
        $this->server['server_protocol'] = $request->version;
        if ($request->length() === 0) {
            return;
        }
        $this->body = $request->isHeld() ? '' : $request->body;
        if (in_array($request->method, ['POST', 'PUT', 'PATCH', 'DELETE'], true)) {
            $this->form($request, $request->header('content-type') ?? '');
        }
    }

    private function form(WsdRequest $request, string $type): void
    {
        if (stripos($type, 'application/x-www-form-urlencoded') === 0) {
            if ($this->setting['http_parse_post'] ?? true) {
                $this->post = Variables::parse($request->body);
            }
            return;
        }
        $boundary = Multipart::boundary($type);
        if ($boundary !== null) {
            $form = new Multipart($boundary, $this->setting['upload_tmp_dir'] ?? null);
            foreach ($request->parts() as $part) {
                $form->feed($part);
            }
            $form->end();
            $files = ($this->setting['http_parse_files'] ?? false) ? Multipart::likeFiles($form->files) : $form->files;
            [$this->post, $this->files] = [$form->post ?: null, $files ?: null];
            $this->tmpfiles = $form->temporary ?: null;
        }
    }
}
