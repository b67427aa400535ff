<?php

declare(strict_types=1);

namespace Swoole\Http;

use Wsd\Multipart;
use Wsd\Request as WsdRequest;

/** The request that opened a connection, or a plain HTTP request, as Swoole shows it. */
#[\AllowDynamicProperties]
class Request
{
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

    /** @internal */
    public static function of(WsdRequest $request, int $port): self
    {
        $self = new self();
        $self->fd = $request->fd;
        $self->header = $request->headers();
        $self->cookie = $request->cookies() ?: null;
        $self->get = $request->query() ?: null;
        [$peer, $peerPort] = $request->peerAddress();
        $now = microtime(true);
        $self->server = [
            'request_method' => $request->method,
            'request_uri' => $request->path(),
            'path_info' => rawurldecode($request->path()),
            'request_time' => (int) $now,
            'request_time_float' => $now,
            'server_protocol' => 'HTTP/1.1',
            'server_port' => $port,
            'remote_port' => $peerPort,
            'remote_addr' => $request->client !== '' ? $request->client : $peer,
            'master_time' => (int) $now,
        ];
        if ($request->queryString() !== '') {
            $self->server['query_string'] = $request->queryString();
        }
        if ($request->method !== 'GET' || $request->fd === 0) {
            $self->body = $request->body;
            $self->form($self->header['content-type'] ?? '');
        }
        return $self;
    }

    public function rawContent(): string|false
    {
        return $this->body;
    }

    public function getContent(): string|false
    {
        return $this->body;
    }

    public function getMethod(): string|false
    {
        return $this->server['request_method'];
    }

    public function isCompleted(): bool
    {
        return true;
    }

    private function form(string $type): void
    {
        if ($this->body === '') {
            return;
        }
        if (stripos($type, 'application/x-www-form-urlencoded') === 0) {
            parse_str($this->body, $this->post);
        } elseif (preg_match('~^multipart/form-data;.*boundary="?([^";]+)"?~i', $type, $found)) {
            [$this->post, $this->files] = Multipart::parse($this->body, $found[1]);
            $this->tmpfiles = array_column($this->files ?? [], 'tmp_name');
        }
    }

    public function __destruct()
    {
        foreach ($this->tmpfiles ?? [] as $file) {
            is_string($file) && is_file($file) && unlink($file);
        }
    }
}
