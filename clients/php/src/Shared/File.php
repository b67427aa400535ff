<?php

declare(strict_types=1);

namespace Wsd\Shared;

/**
 * Bytes that all processes of a server share, in a file with a lock (flock(2)).
 *
 * Each process runs the whole script, so each makes the same files before the server runs, one after
 * the other. When it runs, the file of the first process becomes that of all, and what the others
 * made is dropped: so a value is what it was before a reload. A file that is made later is of its
 * process alone, and of those that the process forks.
 *
 * The kernel ends the lock of a process that dies. A process that was forked opens the file anew,
 * since a lock belongs to what was opened.
 */
final class File
{
    private const LOCK_TRIES_MAX = 1000;

    /** @var array<string, list<array{0: \WeakReference<self>, 1: string}>> by kind, in the order they were made */
    private static array $made = [];
    private static ?Place $server = null;

    /** @var resource */
    private $stream;
    private int $pid = 0;
    private bool $private = true;
    private int $maker;

    private function __construct(private string $path)
    {
        $this->maker = getmypid();
    }

    /**
     * Makes a file of so many zero bytes.
     *
     * @param string $kind what it is for
     * @param string $shape what has to be the same in each process
     */
    public static function make(string $kind, int $bytes, string $shape = ''): self
    {
        $place = self::$server ?? Place::own();
        $file = new self("$place->path/own-" . getmypid() . '-' . bin2hex(random_bytes(8)));
        $file->open('x+e');
        if (!@ftruncate($file->stream, $bytes)) {
            throw new \RuntimeException("$file->path: no room for $bytes bytes");
        }
        if (self::$server === null) {
            self::$made[$kind][] = [\WeakReference::create($file), $shape];
        }
        return $file;
    }

    /**
     * The server runs: what was made so far is shared from now on.
     *
     * @throws \RuntimeException where the server was started with a table of another shape
     */
    public static function share(int $master): void
    {
        if (self::$server !== null || self::$made === []) {
            return;
        }
        self::$server = Place::ofServer($master);
        foreach (glob(self::$server->path . '/own-*') ?: [] as $left) {
            is_dir('/proc/' . explode('-', basename($left))[1]) || @unlink($left);
        }
        foreach (self::$made as $kind => $files) {
            foreach ($files as $number => [$file, $shape]) {
                $file->get()?->become($kind, $number, $shape);
            }
        }
        self::$made = [];
        Place::leaveOwn();
    }

    /** The server ends, or goes on without this process. */
    public static function leave(): void
    {
        self::$server?->leave();
        self::$server = null;
    }

    public function __destruct()
    {
        if ($this->private && $this->maker === getmypid()) {
            @unlink($this->path);
        }
    }

    /** Waits for the lock: LOCK_EX or LOCK_SH, also with LOCK_NB. False where LOCK_NB finds it taken. */
    public function lock(int $how): bool
    {
        if ($this->pid !== getmypid()) {
            $this->open('r+e');
        }
        for ($try = 0; $try < self::LOCK_TRIES_MAX; $try++) {
            if (flock($this->stream, $how, $taken)) {
                return true;
            }
            // Else a signal broke the call.
            if ($taken && ($how & LOCK_NB)) {
                return false;
            }
        }
        throw new \RuntimeException("$this->path cannot be locked");
    }

    public function unlock(): void
    {
        flock($this->stream, LOCK_UN);
    }

    public function read(int $at, int $bytes): string
    {
        fseek($this->stream, $at);
        return (string) fread($this->stream, $bytes);
    }

    /** False where there is no memory for it. */
    public function write(int $at, string $bytes): bool
    {
        fseek($this->stream, $at);
        return @fwrite($this->stream, $bytes) === strlen($bytes);
    }

    private function open(string $mode): void
    {
        $old = umask(0077);
        $stream = @fopen($this->path, $mode);
        umask($old);
        if ($stream === false) {
            throw new \RuntimeException("$this->path cannot be opened: " . (error_get_last()['message'] ?? ''));
        }
        stream_set_read_buffer($stream, 0);
        stream_set_write_buffer($stream, 0);
        [$this->stream, $this->pid] = [$stream, getmypid()];
    }

    /** Takes the place of the file of that number, or leaves its bytes for those that are there. */
    private function become(string $kind, int $number, string $shape): void
    {
        $name = self::$server->path . "/$kind-$number";
        $shared = $name . '-' . hash('crc32b', $shape);
        if (array_diff(glob("$name-*") ?: [], [$shared])) {
            throw new \RuntimeException("the $kind number " . ($number + 1) . ' that the script makes is not as '
                . 'it was when the server started: a reload keeps its rows, so restart the server for another');
        }
        // Where another process was first, its file stays. They all start at once.
        @link($this->path, $shared);
        @unlink($this->path);
        $this->path = $shared;
        $this->private = false;
        $this->open('r+e');
    }
}
