<?php

declare(strict_types=1);

namespace Wsd;

/**
 * Reads multipart/form-data (RFC 7578) as PHP does under a web server, which is the only place where
 * PHP itself does so: names in quotes or without, CRLF or LF alone, a boundary in quotes.
 *
 * The body may come in pieces of any size. An upload goes to a file of its own as it comes, so that
 * what is held is a part's head, a field's value, or a few hundred bytes.
 */
final class Multipart
{
    private const HEAD_BYTES_MAX = 16384;

    /** @var array<array-key, mixed> fields, as PHP's $_POST has them */
    public array $post = [];
    /** @var array<array-key, mixed> uploads by name: each a set of name, type, tmp_name, error, size */
    public array $files = [];
    /** @var list<string> every temporary file, to be deleted by whom the form belongs to */
    public array $temporary = [];

    private string $buffer = '';
    private string $state = 'before';
    /** How many parts, and how many uploads among them, may come: PHP's limits. */
    private int $partsLeft;
    private int $uploadsLeft;
    /** How many uploads had no name, and have a number instead. */
    private int $nameless = 0;
    /** What the form's field MAX_FILE_SIZE says; 0: nothing. */
    private int $most = 0;
    private string $pairs = '';
    private ?string $name = null;
    private string $value = '';
    /** @var array{name: string, type: string, tmp_name: string, error: int, size: int}|null */
    private ?array $file = null;
    /** Whether the line break that head() put before the body is still to be taken off. */
    private bool $fresh = false;
    /** @var resource|null */
    private $sink = null;

    /** @param string|null $directory where uploads go; null is the sys_temp_dir of php.ini */
    public function __construct(private string $boundary, private ?string $directory = null)
    {
        $this->uploadsLeft = (int) ini_get('max_file_uploads');
        $parts = (int) (ini_get('max_multipart_body_parts') ?: -1);
        $this->partsLeft = $parts >= 0 ? $parts : (int) ini_get('max_input_vars') + $this->uploadsLeft;
    }

    /** The boundary that a Content-Type names; null where it is no form of this kind. */
    public static function boundary(string $type): ?string
    {
        if (!preg_match('~^\s*multipart/form-data\s*(?:;|,)(.*)$~is', $type, $found)) {
            return null;
        }
        if (!preg_match('~(?:^|[;,\s])boundary\s*=\s*(?:"([^"]*)"|([^;,]*))~i', $found[1], $boundary)) {
            return null;
        }
        $boundary = ($boundary[1] ?? '') !== '' ? $boundary[1] : rtrim($boundary[2] ?? '');
        return $boundary === '' ? null : $boundary;
    }

    /** A whole body at once. */
    public static function parse(string $body, string $boundary, ?string $directory = null): self
    {
        $form = new self($boundary, $directory);
        $form->feed($body);
        $form->end();
        return $form;
    }

    /** Takes the next bytes of the body. */
    public function feed(string $bytes): void
    {
        $this->buffer .= $bytes;
        while ($this->state !== 'after') {
            $more = match ($this->state) {
                'before' => $this->before(),
                'head' => $this->head(),
                'body' => $this->body(),
            };
            if (!$more) {
                return;
            }
        }
        $this->buffer = '';
    }

    /** The body has ended. An upload that its end cuts off is UPLOAD_ERR_PARTIAL. */
    public function end(): void
    {
        if ($this->state === 'body') {
            [$data, $rest] = explode("\n--$this->boundary", $this->buffer, 2) + [1 => null];
            // A line break at the very end is that of a boundary which did not come.
            $data = $rest === null ? preg_replace('/(?<!\A)\n\z/', '', $data) : $data;
            $this->take(str_ends_with($data, "\r") ? substr($data, 0, -1) : $data);
            if ($rest === null && $this->file !== null && $this->file['error'] === UPLOAD_ERR_OK) {
                $this->file['error'] = UPLOAD_ERR_PARTIAL;
            }
            $this->finish();
        }
        $this->state = 'after';
        $this->buffer = '';
        $this->post = Variables::parse($this->pairs);
        $this->pairs = '';
    }

    /** Uploads in the order of PHP's $_FILES: `a[b]` is at ['a']['name']['b']. */
    public static function likeFiles(array $files): array
    {
        $out = [];
        foreach ($files as $name => $file) {
            $out[$name] = $file;
            if (!self::isFile($file)) {
                $out[$name] = [];
                foreach (['name', 'type', 'tmp_name', 'error', 'size'] as $key) {
                    $out[$name][$key] = self::column($file, $key);
                }
            }
        }
        return $out;
    }

    private static function isFile(mixed $file): bool
    {
        return is_array($file) && isset($file['error']) && is_int($file['error'])
            && is_string($file['tmp_name'] ?? null);
    }

    private static function column(array $files, string $key): array
    {
        return array_map(fn ($file) => self::isFile($file) ? $file[$key] : self::column($file, $key), $files);
    }

    /** Everything up to the first boundary's line is no part. */
    private function before(): bool
    {
        // One search for all lines: a body may have nothing but short ones.
        $line = '/(?:\A|\n)--' . preg_quote($this->boundary, '/') . '(--)?\r*+\n/';
        if (preg_match($line, $this->buffer, $found, PREG_OFFSET_CAPTURE)) {
            $this->state = isset($found[1]) ? 'after' : 'head';
            $this->buffer = substr($this->buffer, $found[0][1] + strlen($found[0][0]));
            return true;
        }
        $this->buffer = substr($this->buffer, (int) strrpos("\n$this->buffer", "\n"));
        if (strlen($this->buffer) > self::HEAD_BYTES_MAX) {
            $this->state = 'after'; // A line of that length is no boundary.
            return true;
        }
        return false;
    }

    private function head(): bool
    {
        if (!preg_match('/\r?\n\r?\n|\A\r?\n/', $this->buffer, $found, PREG_OFFSET_CAPTURE)) {
            if (strlen($this->buffer) > self::HEAD_BYTES_MAX) {
                $this->state = 'after';
                return true;
            }
            return false;
        }
        [$gap, $at] = $found[0];
        $head = substr($this->buffer, 0, $at);
        // A body without a byte is followed by the line break that begins the boundary's line.
        $this->buffer = "\n" . substr($this->buffer, $at + strlen($gap));
        $this->state = $this->partsLeft-- > 0 ? 'body' : 'after';
        $this->state === 'body' ? $this->begin($head) : Variables::say('Multipart body parts limit exceeded. '
            . 'To increase the limit change max_multipart_body_parts in php.ini.');
        return true;
    }

    /** Takes what cannot be a boundary any more. */
    private function body(): bool
    {
        $mark = "\n--$this->boundary";
        $at = strpos($this->buffer, $mark);
        if ($at === false) {
            // The last bytes may be the beginning of it, with a CR before.
            $sure = strlen($this->buffer) - strlen($mark) - 1;
            if ($sure > 0) {
                $this->take(substr($this->buffer, 0, $sure));
                $this->buffer = substr($this->buffer, $sure);
            }
            return false;
        }
        $rest = substr($this->buffer, $at + strlen($mark), 4);
        if (strlen($rest) < 2) {
            return false;
        }
        $data = substr($this->buffer, 0, $at);
        $this->take(str_ends_with($data, "\r") ? substr($data, 0, -1) : $data);
        $this->finish();
        $this->buffer = substr($this->buffer, $at + 1);
        $this->state = str_starts_with($rest, '--') ? 'after' : 'before';
        return true;
    }

    private function begin(string $head): void
    {
        [$this->name, $this->file, $this->value, $this->sink] = [null, null, '', null];
        $this->fresh = true;
        $fields = [];
        foreach (preg_split('/\r?\n(?![ \t])/', $head) as $line) {
            [$key, $value] = explode(':', $line, 2) + [1 => ''];
            $fields[strtolower(trim($key))] ??= trim($value);
        }
        $words = self::parameters($fields['content-disposition'] ?? '');
        $this->name = $words['name'] ?? null;
        if (!isset($words['filename'])) {
            return;
        }
        if ($this->uploadsLeft < 1) {
            $this->uploadsLeft-- === 0 && Variables::say('Maximum number of allowable file uploads has been exceeded. '
                . 'To increase the limit change max_file_uploads in php.ini.');
            // As in PHP, it is as if it had not come.
            $this->name = null;
            return;
        }
        $this->name ??= (string) $this->nameless++;
        $type = trim(explode(';', $fields['content-type'] ?? '')[0]);
        $this->file = $this->open($words['filename'], $type);
    }

    private function open(string $path, string $type): array
    {
        $name = substr(strrchr('/' . strtr($path, '\\', '/'), '/'), 1);
        $file = ['name' => $name, 'type' => $type, 'tmp_name' => '', 'error' => UPLOAD_ERR_OK, 'size' => 0];
        if ($path === '') {
            [$file['error'], $file['type']] = [UPLOAD_ERR_NO_FILE, ''];
            return $file;
        }
        $this->uploadsLeft--;
        $temporary = @tempnam($this->directory ?? sys_get_temp_dir(), 'wsd-upload-');
        $this->sink = $temporary === false ? null : (@fopen($temporary, 'wb') ?: null);
        if ($this->sink === null) {
            $file['error'] = UPLOAD_ERR_CANT_WRITE;
            return $file;
        }
        $this->temporary[] = $file['tmp_name'] = $temporary;
        return $file;
    }

    private function take(string $bytes): void
    {
        if ($bytes === '') {
            return;
        }
        if ($this->fresh) {
            $bytes = substr($bytes, 1);
            $this->fresh = false;
        }
        if ($this->file === null) {
            // Of a part without a name nothing is kept.
            $this->value .= $this->name === null ? '' : $bytes;
        } elseif ($this->sink !== null) {
            if (@fwrite($this->sink, $bytes) === strlen($bytes)) {
                $this->file['size'] += strlen($bytes);
            } else {
                $this->file['error'] = UPLOAD_ERR_CANT_WRITE;
            }
        }
    }

    private function finish(): void
    {
        if ($this->sink !== null) {
            fclose($this->sink);
            $this->sink = null;
        }
        if ($this->file !== null && $this->most > 0 && $this->file['size'] > $this->most) {
            $this->file['error'] = UPLOAD_ERR_FORM_SIZE;
        }
        if ($this->file !== null && ($this->file['error'] !== UPLOAD_ERR_OK || !self::names($this->name))) {
            // As in PHP there is no file of what did not come whole, or goes nowhere.
            $this->forget();
        }
        if ($this->name === null || ($this->file !== null && !self::names($this->name))) {
            return;
        }
        if ($this->file !== null) {
            self::put($this->files, $this->name, $this->file);
        } else {
            $this->most = $this->name === 'MAX_FILE_SIZE' ? (int) $this->value : $this->most;
            $this->pairs .= ($this->pairs === '' ? '' : '&') . urlencode($this->name) . '=' . urlencode($this->value);
        }
        $this->value = '';
    }

    private function forget(): void
    {
        if ($this->file['tmp_name'] !== '') {
            @unlink($this->file['tmp_name']);
            $this->temporary = array_values(array_diff($this->temporary, [$this->file['tmp_name']]));
        }
        [$this->file['tmp_name'], $this->file['size']] = ['', 0];
    }

    /** Whether an upload's name names a place: something, and brackets that are closed one by one. */
    private static function names(string $name): bool
    {
        return preg_match('/^[^\[\]]+(\[[^\[\]]*\])*$/s', $name) === 1;
    }

    /**
     * The parameters of a Content-Disposition, by PHP's rules: `;` parts them, quotes of both kinds
     * hold one together, and a backslash counts before itself and its own quote only.
     *
     * @return array<string, string>
     */
    private static function parameters(string $line): array
    {
        $word = '/([^=;]*)=\s*(?:"((?:\\\\["\\\\]|[^"])*)"?|\'((?:\\\\[\'\\\\]|[^\'])*)\'?|([^\s;]*))[^;]*/';
        preg_match_all($word, $line, $all, PREG_SET_ORDER | PREG_UNMATCHED_AS_NULL);
        $parameters = [];
        foreach ($all as [, $key, $double, $single, $bare]) {
            $parameters[strtolower(trim($key))] ??= match (true) {
                $double !== null => preg_replace('/\\\\(["\\\\])/', '$1', $double),
                $single !== null => preg_replace('/\\\\([\'\\\\])/', '$1', $single),
                default => str_replace('\\\\', '\\', (string) $bare),
            };
        }
        return $parameters;
    }

    /** "a[b][]" names a place in nested arrays, as in PHP's forms. */
    private static function put(array &$files, string $name, array $file): void
    {
        if (!preg_match('/^([^\[]+)((?:\[[^\]]*\])*)/', $name, $found)) {
            $files[$name] = $file;
            return;
        }
        preg_match_all('/\[([^\]]*)\]/', $found[2], $keys);
        $at = &$files[strtr($found[1], ' .', '__')];
        foreach ($keys[1] as $key) {
            $at = is_array($at) && !self::isFile($at) ? $at : [];
            if ($key === '') {
                $at = &$at[];
            } else {
                $at = &$at[$key];
            }
        }
        $at = $file;
    }
}
