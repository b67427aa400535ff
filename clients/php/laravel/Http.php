<?php

declare(strict_types=1);

namespace Wsd\Laravel;

use Illuminate\Http\Request as IlluminateRequest;
use Illuminate\Http\UploadedFile;
use Swoole\Http\Request as SwooleRequest;
use Symfony\Component\HttpFoundation\BinaryFileResponse;
use Symfony\Component\HttpFoundation\Response;
use Symfony\Component\HttpFoundation\StreamedResponse;
use Wsd\Compression;
use Wsd\Reply;
use Wsd\Request;

/** Requests and responses, from wsd's to Laravel's and back. */
final class Http
{
    /** Fields of a response that the server writes itself. */
    private const OF_THE_SERVER = ['connection', 'transfer-encoding', 'content-length', 'keep-alive', 'upgrade'];
    /** A refusal is not longer; a debug page is. */
    private const REFUSAL_BYTES_MAX = 16 << 10;
    /** An attribute that keeps the form, whose uploads are deleted with it, as long as the request. */
    private const FORM = '_wsd_form';

    /** @param array<string, mixed> $setting what laravels.swoole says */
    public static function request(Request $request, int $port, string $public, array $setting): IlluminateRequest
    {
        // Only what has a body may be a form. Laravel wants its parts whatever Swoole's keys say.
        $form = $request->length() === 0 ? null
            : SwooleRequest::of($request, $port, array_intersect_key($setting, ['upload_tmp_dir' => 1]));
        $post = $form?->post ?? [];
        if ($post === [] && in_array($request->method, ['PUT', 'PATCH', 'DELETE'], true)
            && str_starts_with($form?->header['content-type'] ?? '', 'application/x-www-form-urlencoded')) {
            parse_str($request->body, $post);
        }
        // What createFromBase() gives, without the copy of it all.
        $illuminate = new IlluminateRequest(
            $request->query(),
            $post,
            $form === null ? [] : [self::FORM => $form],
            $request->cookies(),
            self::files($form?->files ?? []),
            self::server($request, $port, $public),
            self::content($request, $form?->tmpfiles !== null || $post !== []),
        );
        if ($illuminate->isJson()) {
            $illuminate->request = $illuminate->json();
        }
        return $illuminate;
    }

    /**
     * What getContent() gives: a long body as a stream, which getContent(true) reads in parts. Of a
     * long form nothing, as with php://input.
     *
     * @return string|resource
     */
    private static function content(Request $request, bool $isForm)
    {
        if (!$request->isHeld()) {
            return $request->body;
        }
        if ($isForm) {
            return '';
        }
        $stream = fopen('php://temp', 'w+b');
        foreach ($request->parts() as $part) {
            fwrite($stream, $part);
        }
        rewind($stream);
        return $stream;
    }

    /**
     * Uploads as objects. PHP itself did not receive them, so they are marked as test ones, which
     * says only that is_uploaded_file() is not to be asked.
     */
    private static function files(array $files): array
    {
        return array_filter(array_map(function (array $file) {
            if (!isset($file['tmp_name']) || is_array($file['tmp_name'])) {
                return self::files($file);
            }
            return $file['error'] === UPLOAD_ERR_NO_FILE ? null : new UploadedFile(
                $file['tmp_name'],
                $file['name'],
                $file['type'],
                $file['error'],
                true,
            );
        }, $files));
    }

    /** @return list<array{0: string, 1: string}> the header fields of a response */
    public static function fields(Response $response): array
    {
        $fields = [];
        foreach ($response->headers->allPreserveCaseWithoutCookies() as $name => $values) {
            $name = strtolower((string) $name);
            if (in_array($name, self::OF_THE_SERVER, true)) {
                continue;
            }
            foreach ($values as $value) {
                $fields[] = [$name, strtr((string) $value, "\r\n\0", '   ')];
            }
        }
        return [...$fields, ...self::cookies($response)];
    }

    /** @return list<array{0: string, 1: string}> the cookies of a response as fields */
    public static function cookies(Response $response): array
    {
        return array_map(
            fn ($cookie) => ['set-cookie', (string) $cookie],
            array_values($response->headers->getCookies()),
        );
    }

    /** Sends an answer: a file as a file, and what a callback makes while it makes it. */
    public static function send(
        Response $response,
        string $before,
        Reply $reply,
        ?Compression $compression = null,
        bool $isHead = false,
    ): void {
        $status = $response->getStatusCode();
        $fields = self::fields($response);
        $length = $response->headers->get('Content-Length');
        if ($isHead && $length !== null) {
            $reply->send(new \Wsd\Response($status, '', [...$fields, ['content-length', $length]]));
            return;
        }
        if ($response instanceof BinaryFileResponse && $before === '' && self::file($response, $fields, $reply)) {
            return;
        }
        if (!$response instanceof StreamedResponse && !$response instanceof BinaryFileResponse) {
            $whole = new \Wsd\Response($status, $before . $response->getContent(), $fields);
            $compression?->apply($whole);
            $reply->send($whole);
            return;
        }
        $reply->begin($status, $fields);
        $level = ob_get_level();
        // What is printed leaves at once; a callback whose client is gone ends at its next output.
        ob_start(static function (string $part) use ($reply): string {
            if ($part !== '' && !$reply->write($part)) {
                throw new ClientGone();
            }
            return '';
        }, 1);
        try {
            echo $before;
            $response->sendContent();
            while (ob_get_level() > $level) {
                ob_end_flush();
            }
            $reply->end();
        } catch (ClientGone) {
            // Nobody is there to be told.
        } finally {
            while (ob_get_level() > $level) {
                ob_end_clean();
            }
        }
    }

    /** The answer to a handshake that is refused: no page for people, and none of megabytes. */
    public static function refusal(Response $response): \Wsd\Response
    {
        $status = $response->getStatusCode();
        $whole = !$response instanceof StreamedResponse && !$response instanceof BinaryFileResponse;
        $body = $whole ? (string) $response->getContent() : '';
        if ($status < 500 && strlen($body) <= self::REFUSAL_BYTES_MAX) {
            return new \Wsd\Response($status, $body, self::fields($response));
        }
        return new \Wsd\Response($status, "The application refused: status $status.\n", self::cookies($response));
    }

    /** A file, and the range of it that the response was prepared for. */
    private static function file(BinaryFileResponse $response, array $fields, Reply $reply): bool
    {
        [$offset, $length, $delete] = (fn (): array => [
            $this->offset,
            $this->maxlen < 0 ? null : $this->maxlen,
            $this->deleteFileAfterSend,
        ])->call($response);
        $path = $response->getFile()->getPathname();
        $sent = $reply->file($path, $response->getStatusCode(), $fields, $offset, $length);
        if ($sent && $delete && is_file($path)) {
            unlink($path);
        }
        return $sent;
    }

    /** @return array<string, mixed> what PHP has in $_SERVER under a web server */
    private static function server(Request $request, int $port, string $public): array
    {
        [$peer, $peerPort] = $request->peerAddress();
        $now = microtime(true);
        $server = [
            'REQUEST_METHOD' => $request->method,
            'REQUEST_URI' => $request->target,
            'QUERY_STRING' => $request->queryString(),
            'REQUEST_TIME' => (int) $now,
            'REQUEST_TIME_FLOAT' => $now,
            'REMOTE_ADDR' => $request->client !== '' ? $request->client : $peer,
            'REMOTE_PORT' => $peerPort,
            'SERVER_PROTOCOL' => $request->version,
            'SERVER_ADDR' => $request->localAddress()[0],
            'SERVER_NAME' => 'localhost',
            'SERVER_PORT' => $port,
            'SERVER_SOFTWARE' => 'wsd',
            'SCRIPT_NAME' => '/index.php',
            'SCRIPT_FILENAME' => "$public/index.php",
            'DOCUMENT_ROOT' => $public,
            'PHP_SELF' => '/index.php',
        ];
        foreach ($request->headers() as $name => $value) {
            $server['HTTP_' . strtoupper(strtr((string) $name, '-', '_'))] = $value;
        }
        foreach (['CONTENT_TYPE', 'CONTENT_LENGTH'] as $name) {
            if (isset($server["HTTP_$name"])) {
                $server[$name] = $server["HTTP_$name"];
            }
        }
        if (isset($server['HTTP_HOST'])) {
            $server['SERVER_NAME'] = explode(':', $server['HTTP_HOST'], 2)[0];
        }
        // LaravelS's headers of nginx count only where wsd trusts the proxy that sent them.
        if (isset($server['HTTP_SCHEME']) && $request->client !== '' && $request->client !== $peer) {
            $server['REQUEST_SCHEME'] = $server['HTTP_SCHEME'];
            $server['HTTPS'] = $server['HTTP_SCHEME'] === 'https' ? 'on' : 'off';
            $server['SERVER_PORT'] = (int) ($server['HTTP_SERVER_PORT'] ?? $port);
        }
        return $server;
    }
}
