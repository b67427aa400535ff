<?php

declare(strict_types=1);

namespace Wsd\Shared;

/**
 * Rows by key in a File: the hash table behind Swoole\Table, with Swoole's hash, sizes and order.
 *
 * A key's row is that of its hash, or one of the spare rows behind it. All is done under the file's
 * lock. What takes several writes is written ahead: where a process dies in the midst, the next one
 * carries it out. A row that fits into a page does not cross one, so that the kernel writes it whole.
 */
final class Rows
{
    private const PAGE_BYTES = 4096;
    /** How many bytes are written ahead behind the head, and what is counted. */
    private const HEAD = 'Vahead/x4/Pcount/Pinserted/Pdeleted/Pconflicts/Plevel/Pfree/Pfresh/Pused';
    private const HEAD_BYTES = 72;
    /** Before the data of a row: the length of its key, the number of the next row, and the key. */
    public const ROW_HEAD_BYTES = 72;
    public const KEY_BYTES_MAX = 63;

    private File $file;
    private int $rowBytes;
    private int $perPage;
    private int $first;
    private bool $large;
    private int $pageBytes;
    /** Where a row was found by find(): its number, that of the row before it, and how many it looked at. */
    private int $at = 0;
    private int $before = -1;
    private int $level = 0;

    /**
     * @param int $size how many rows have a place of their own, a power of two
     * @param int $spare how many more there are for keys of the same hash
     * @param int $dataBytes of a row
     * @param string $shape what has to be the same in each process
     */
    public function __construct(private int $size, private int $spare, int $dataBytes, string $shape)
    {
        $this->rowBytes = (self::ROW_HEAD_BYTES + $dataBytes + 7) & ~7;
        $this->large = $this->rowBytes > self::PAGE_BYTES;
        $this->perPage = $this->large ? 1 : intdiv(self::PAGE_BYTES, $this->rowBytes);
        $pages = $this->large ? intdiv($this->rowBytes - 1, self::PAGE_BYTES) + 1 : 1;
        $this->pageBytes = $pages * self::PAGE_BYTES;
        // Ahead of the rows: the head, and room for two rows that are written ahead.
        $this->first = intdiv(self::HEAD_BYTES + 3 * ($this->rowBytes + 16), self::PAGE_BYTES) + 1;
        $this->first *= self::PAGE_BYTES;
        $rows = $size + $spare;
        $bytes = $this->first + (intdiv($rows - 1, $this->perPage) + 1) * $this->pageBytes;
        $this->file = File::make('table', $bytes, "$size $spare $shape");
    }

    /** The row of a key, null where there is none. */
    public function get(string $key): ?string
    {
        $this->file->lock(LOCK_SH);
        if ($this->large && unpack('V', $this->file->read(0, 4))[1] !== 0) {
            $this->file->unlock();
            $this->head();
        }
        $row = $this->find($key);
        $this->file->unlock();
        return $row;
    }

    /**
     * Changes the row of a key under the lock.
     *
     * @param callable(?string): (string|false|null) $change is given the data or null, and gives the
     *     new data, null to delete the row, or false to leave things alone
     * @return bool|null whether the row was changed; null where there is no room for another one
     */
    public function change(string $key, callable $change): ?bool
    {
        $head = $this->head();
        try {
            $row = $this->find($key);
            $data = $change($row === null ? null : substr($row, self::ROW_HEAD_BYTES));
            if ($data === false) {
                return false;
            }
            if ($data === null) {
                return $row !== null && $this->delete($head, $row);
            }
            if ($row !== null) {
                return $this->put($head, substr($row, 0, self::ROW_HEAD_BYTES) . $data) ?: null;
            }
            return $this->insert($head, $key, $data) ? true : null;
        } finally {
            $this->file->unlock();
        }
    }

    /** @return array<string, int> what is counted */
    public function counts(): array
    {
        $head = $this->head();
        $this->file->unlock();
        return unpack(self::HEAD, $head);
    }

    /**
     * Rows from a number on, with the spare ones behind each.
     *
     * @return array{0: int, 1: list<string>} where to go on, -1 at the end, and whole rows
     */
    public function from(int $number): array
    {
        $rows = [];
        $this->file->lock(LOCK_SH);
        while ($rows === [] && $number < $this->size) {
            $within = $number % $this->perPage;
            $count = min($this->perPage - $within, $this->size - $number);
            $page = $this->file->read($this->place($number), $count * $this->rowBytes);
            for ($i = 0; $i < $count; $i++) {
                if (($page[$i * $this->rowBytes] ?? "\0") !== "\0") {
                    array_push($rows, ...$this->chain(substr($page, $i * $this->rowBytes, $this->rowBytes)));
                }
            }
            $number += $count;
        }
        $this->file->unlock();
        return [$number < $this->size ? $number : -1, $rows];
    }

    /** The key of a row. */
    public static function key(string $row): string
    {
        return substr($row, 8, ord($row[0]));
    }

    /** @return list<string> the row and those behind it */
    private function chain(string $row): array
    {
        $rows = [$row];
        while (($next = unpack('V', $row, 4)[1]) !== 0) {
            $rows[] = $row = $this->row($this->size + $next - 1);
        }
        return $rows;
    }

    /** The row of a key; $at is where it is, or the last row behind its hash. */
    private function find(string $key): ?string
    {
        // PHP's hash of strings (times 33), as in Swoole; the lower 32 bits are enough for 2^31 rows.
        $hash = 5381;
        foreach (unpack('C*', $key) as $byte) {
            $hash = ($hash * 33 + $byte) & 0xffffffff;
        }
        [$this->at, $this->before, $this->level] = [$hash & ($this->size - 1), -1, 0];
        $head = chr(strlen($key));
        while (true) {
            $row = $this->row($this->at);
            if ($row[0] === "\0") {
                return null;
            }
            $this->level++;
            if ($row[0] === $head && substr_compare($row, $key, 8, strlen($key)) === 0) {
                return $row;
            }
            $next = unpack('V', $row, 4)[1];
            if ($next === 0) {
                return null;
            }
            [$this->before, $this->at] = [$this->at, $this->size + $next - 1];
        }
    }

    /** @param string $old the head */
    private function insert(string $old, string $key, string $data): bool
    {
        $row = pack('Cx3Va64', strlen($key), 0, $key) . $data;
        $head = unpack(self::HEAD, $old);
        $head['count']++;
        $head['inserted']++;
        if ($this->level === 0) {
            return $this->writeAhead($old, $head, [$this->at => $row]);
        }
        $spare = $head['free'];
        if ($spare !== 0) {
            $head['free'] = unpack('V', $this->row($this->size + $spare - 1), 4)[1];
        } elseif ($head['fresh'] < $this->spare) {
            $spare = ++$head['fresh'];
        } else {
            return false;
        }
        $head['conflicts']++;
        $head['used']++;
        $head['level'] = max($head['level'], $this->level);
        $last = $this->row($this->at);
        return $this->writeAhead($old, $head, [
            $this->size + $spare - 1 => $row,
            $this->at => substr_replace($last, pack('V', $spare), 4, 4),
        ]);
    }

    /** @param string $old the head */
    private function delete(string $old, string $row): bool
    {
        $head = unpack(self::HEAD, $old);
        $head['count']--;
        $head['deleted']++;
        $next = unpack('V', $row, 4)[1];
        if ($this->before < 0 && $next === 0) {
            return $this->writeAhead($old, $head, [$this->at => str_repeat("\0", self::ROW_HEAD_BYTES)]);
        }
        // The first row stays where its hash is, so the second moves there.
        $freed = $this->before < 0 ? $next : $this->at - $this->size + 1;
        $writes = $this->before < 0
            ? [$this->at => $this->row($this->size + $next - 1)]
            : [$this->before => substr_replace($this->row($this->before), pack('V', $next), 4, 4)];
        $writes[$this->size + $freed - 1] = pack('VVx64', 0, $head['free']);
        $head['free'] = $freed;
        $head['used']--;
        return $this->writeAhead($old, $head, $writes);
    }

    /** Takes the lock, carries out what a process that died has written ahead, and gives the head. */
    private function head(): string
    {
        $this->file->lock(LOCK_EX);
        $head = $this->file->read(0, self::HEAD_BYTES);
        return str_starts_with($head, "\0\0\0\0") ? $head : $this->carryOut(unpack(self::HEAD, $head));
    }

    /** @param array<string, int> $head */
    private function carryOut(array $head): string
    {
        $writes = $this->file->read(self::HEAD_BYTES, $head['ahead']);
        for ($at = 0; $at < $head['ahead']; $at += 12 + $length) {
            ['place' => $place, 'length' => $length] = unpack('Pplace/Vlength', $writes, $at);
            $this->file->write($place, substr($writes, $at + 12, $length));
        }
        $bytes = self::packed(0, $head);
        $this->file->write(0, $bytes);
        return $bytes;
    }

    /**
     * Writes rows and the head so that all of it is done, or nothing.
     *
     * @param string $old the head so far
     * @param array<string, int> $new the head then
     * @param array<int, string> $rows by number; the first alone may be one that had no memory yet
     */
    private function writeAhead(string $old, array $new, array $rows): bool
    {
        $writes = '';
        foreach ($rows as $number => $row) {
            $writes .= pack('PV', $this->place($number), strlen($row)) . $row;
        }
        $head = self::packed(strlen($writes), $new);
        // The kernel writes a page whole, or not.
        $whole = strlen($head) + strlen($writes) <= self::PAGE_BYTES;
        if (!($whole || $this->file->write(self::HEAD_BYTES, $writes))
            || !$this->file->write(0, $whole ? $head . $writes : $head)) {
            return false;
        }
        foreach ($rows as $number => $row) {
            if (!$this->file->write($this->place($number), $row)) {
                $this->file->write(0, $old);
                return false;
            }
        }
        return $this->file->write(0, self::packed(0, $new));
    }

    /** @param array<string, int> $head */
    private static function packed(int $ahead, array $head): string
    {
        return pack('V2P8', $ahead, 0, $head['count'], $head['inserted'], $head['deleted'],
            $head['conflicts'], $head['level'], $head['free'], $head['fresh'], $head['used']);
    }

    /** Writes the row that find() has found. */
    private function put(string $head, string $row): bool
    {
        return $this->large
            ? $this->writeAhead($head, unpack(self::HEAD, $head), [$this->at => $row])
            : $this->file->write($this->place($this->at), $row);
    }

    private function row(int $number): string
    {
        $row = $this->file->read($this->place($number), $this->rowBytes);
        return strlen($row) === $this->rowBytes ? $row : throw new \RuntimeException('a table has lost its file');
    }

    private function place(int $number): int
    {
        return $this->first + intdiv($number, $this->perPage) * $this->pageBytes
            + $number % $this->perPage * $this->rowBytes;
    }
}
