<?php

declare(strict_types=1);

namespace Swoole\Http;

use Wsd\Multipart;
use Wsd\Request as WsdRequest;

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
    /** @var array<string, mixed> parse_cookie, parse_body, parse_files, upload_tmp_dir */
    private array $options = [];

    /**
     * @internal
     * @param array<string, mixed> $setting what was given to set()
     */
    public static function of(WsdRequest $request, int $port, array $setting = []): self
    {
        $self = new self();
        $self->fd = $request->fd;
        $self->from = $request;
        $self->options = [
            'parse_cookie' => $setting['http_parse_cookie'] ?? true,
            'parse_body' => $setting['http_parse_post'] ?? true,
            'parse_files' => $setting['http_parse_files'] ?? false,
            'upload_tmp_dir' => $setting['upload_tmp_dir'] ?? null,
        ];
        $self->header = [];
        $self->server = [];
        $self->read($request);
        [$peer, $peerPort] = $request->peerAddress();
        $self->server += [
            'server_port' => $request->localAddress()[1] ?: $port,
            'remote_port' => $peerPort,
            'server_addr' => $request->localAddress()[0],
            'remote_addr' => $request->client !== '' ? $request->client : $peer,
            'master_time' => $self->server['request_time'],
        ];
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
        $self->options = array_change_key_case($options)
            + ['parse_cookie' => true, 'parse_body' => true, 'parse_files' => true, 'upload_tmp_dir' => null];
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
        return array_diff_key(get_object_vars($this), array_flip(['body', 'raw', 'from', 'completed', 'options']));
    }

    public function __destruct()
    {
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
        foreach ($request->fields as [$name, $value]) {
            if ($name === 'cookie' && $this->options['parse_cookie']) {
                continue;
            }
            // A repeated field is a list, as in Swoole 6, but for those of which the last counts.
            $this->header[$name] = isset($this->header[$name]) && !in_array($name, self::LAST_COUNTS, true)
                ? [...(array) $this->header[$name], $value]
                : $value;
        }
        $this->cookie = $this->options['parse_cookie'] ? ($request->cookies() ?: null) : null;
        $this->get = $request->query() ?: null;
        $now = microtime(true);
        if ($request->queryString() !== '') {
            $this->server['query_string'] = $request->queryString();
        }
        $this->server += [
            'request_method' => $request->method,
            'request_uri' => $request->path(),
            'path_info' => urldecode($request->path()),
            'request_time' => (int) $now,
            'request_time_float' => $now,
            'server_protocol' => $request->version,
        ];
        $this->body = $request->isHeld() ? '' : $request->body;
        if ($request->length() > 0 && in_array($request->method, ['POST', 'PUT', 'PATCH', 'DELETE'], true)) {
            $this->form($request, $request->header('content-type') ?? '');
        }
    }

    private function form(WsdRequest $request, string $type): void
    {
        if (stripos($type, 'application/x-www-form-urlencoded') === 0) {
            if ($this->options['parse_body']) {
                $this->post = \Wsd\Variables::parse($request->body);
            }
            return;
        }
        $boundary = Multipart::boundary($type);
        if ($boundary !== null) {
            $form = new Multipart($boundary, $this->options['upload_tmp_dir']);
            foreach ($request->parts() as $part) {
                $form->feed($part);
            }
            $form->end();
            $files = $this->options['parse_files'] ? Multipart::likeFiles($form->files) : $form->files;
            [$this->post, $this->files] = [$form->post ?: null, $files ?: null];
            $this->tmpfiles = $form->temporary ?: null;
        }
    }
}
