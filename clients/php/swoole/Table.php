<?php

declare(strict_types=1);

namespace Swoole;

use Wsd\Shared\Columns;
use Wsd\Shared\Rows;

/**
 * Rows by key that all processes of a server share. Made before the server runs, and kept over a
 * reload; a table that is made later is of its process alone. docs/swoole.md says what differs.
 */
final class Table implements \Iterator, \Countable
{
    use \Wsd\Missing;

    public const TYPE_INT = 1;
    public const TYPE_FLOAT = 2;
    public const TYPE_STRING = 3;
    private const SIZE_MAX = 0x80000000;
    /** Sizes in Swoole's memory: of a row's head, a spare row's head, the list of those, a pointer. */
    private const SWOOLE_ROW = 88;
    private const SWOOLE_SLICE = 24;
    private const SWOOLE_POOL = 48;

    public $size;
    public $memorySize;

    private int $rowsMax;
    private float $spare;
    private Columns $columns;
    private ?Rows $rows = null;
    private int $updates = 0;
    /** @var list<string> rows that the iteration has read ahead */
    private array $ahead = [];
    private int $next = 0;

    public function __construct(int $table_size, float $conflict_proportion = 0.2)
    {
        $this->columns = new Columns();
        $this->rowsMax = 64;
        while ($this->rowsMax < $table_size && $this->rowsMax < self::SIZE_MAX) {
            $this->rowsMax *= 2;
        }
        $this->spare = unpack('f', pack('f', max(0.2, min(1.0, $conflict_proportion))))[1];
    }

    /** @param int $size of a string, in bytes */
    public function column(string $name, int $type, int $size = 0): bool
    {
        if ($type === self::TYPE_STRING && $size < 1) {
            return $this->warn('column', 'the length of string type values has to be more than zero');
        }
        if ($this->rows !== null) {
            return $this->warn('column', 'unable to add column after table has been created');
        }
        $fault = $this->columns->add($name, $type, $size);
        // Swoole says this in its log, and not as PHP's warning.
        $fault === null || swoole_error_log(SWOOLE_LOG_WARNING, $fault);
        return $fault === null;
    }

    public function create(): bool
    {
        if ($this->rows !== null) {
            return false;
        }
        $spare = (int) ($this->rowsMax * $this->spare);
        $row = (self::SWOOLE_ROW + $this->columns->bytesInSwoole() + 7) & ~7;
        $this->memorySize = ($this->rowsMax + $spare) * $row + $spare * self::SWOOLE_SLICE
            + self::SWOOLE_POOL + 8 * $this->rowsMax;
        $this->size = $this->rowsMax;
        $this->rows = new Rows($this->rowsMax, $spare, $this->columns->bytes(), $this->columns->shape());
        return true;
    }

    public function destroy(): bool
    {
        $this->rows();
        $this->rows = null;
        return true;
    }

    /** False, with a warning, where the table is full. */
    public function set(string $key, array $value): bool
    {
        return $this->put('set', $key, $value, true, true);
    }

    /** Sets a row that is not there yet. */
    public function add(string $key, array $values): bool
    {
        return $this->put('add', $key, $values, true, false);
    }

    /** Changes a row that is there. */
    public function update(string $key, array $values): bool
    {
        return $this->put('update', $key, $values, false, true);
    }

    /** Changes a row that has these values. */
    public function cmpset(string $key, array $expected, array $values): bool
    {
        if (!$this->isKey('cmpset', $key) || !$this->isExpectable('cmpset', $expected)) {
            return false;
        }
        [$expected, $values] = [$this->columns->packed($expected, null), $this->columns->packed($values, $key)];
        $matches = fn (?string $data): bool => $data !== null && $this->columns->match($data, $expected);
        $change = fn (?string $data) => $matches($data) ? $this->updated($data, $values) : false;
        return $this->rows()->change($key, $change) === true;
    }

    public function get(string $key, ?string $field = null): array|false|string|float|int
    {
        $rows = $this->rows();
        $row = $this->isKey('get', $key) ? $rows->get($key) : null;
        if ($row === null) {
            return false;
        }
        return $field === null
            ? $this->columns->values($row, Rows::ROW_HEAD_BYTES)
            : $this->columns->value($row, Rows::ROW_HEAD_BYTES, $field);
    }

    public function getdel(string $key, ?string $field = null): array|false|string|float|int
    {
        if (!$this->isKey('getdel', $key) || ($field !== null && !$this->columns->has($field))) {
            return false;
        }
        $data = null;
        $this->rows()->change($key, function (?string $old) use (&$data): ?string {
            $data = $old;
            return null;
        });
        if ($data === null) {
            return false;
        }
        return $field === null ? $this->columns->values($data, 0) : $this->columns->value($data, 0, $field);
    }

    public function del(string $key): bool
    {
        return $this->isKey('del', $key) && $this->rows()->change($key, fn () => null) === true;
    }

    public function delete(string $key): bool
    {
        return $this->del($key);
    }

    public function cmpdel(string $key, array $expected): bool
    {
        if (!$this->isKey('cmpdel', $key) || !$this->isExpectable('cmpdel', $expected)) {
            return false;
        }
        $expected = $this->columns->packed($expected, null);
        $change = fn (?string $data) => $data !== null && $this->columns->match($data, $expected) ? null : false;
        return $this->rows()->change($key, $change) === true;
    }

    public function exists(string $key): bool
    {
        return $this->isKey('exists', $key) && $this->rows()->get($key) !== null;
    }

    public function exist(string $key): bool
    {
        return $this->exists($key);
    }

    public function incr(string $key, string $column, mixed $incrby = 1): false|float|int
    {
        return $this->step('incr', $key, $column, $incrby, 1);
    }

    public function decr(string $key, string $column, mixed $incrby = 1): false|float|int
    {
        return $this->step('decr', $key, $column, $incrby, -1);
    }

    public function count(int $mode = COUNT_NORMAL): int
    {
        $count = $this->rows?->counts()['count'] ?? 0;
        return $mode === COUNT_NORMAL ? $count : $count * $this->columns->count();
    }

    public function getSize(): int
    {
        return $this->rowsMax;
    }

    public function getMemorySize(): int
    {
        return $this->memorySize ?? 0;
    }

    /** As Swoole's; `update_count` is of this process. */
    public function stats(): false|array
    {
        if ($this->rows === null) {
            return false;
        }
        $counts = $this->rows->counts();
        return [
            'num' => $counts['count'],
            'conflict_count' => $counts['conflicts'],
            'conflict_max_level' => $counts['level'],
            'insert_count' => $counts['inserted'],
            'update_count' => $this->updates,
            'delete_count' => $counts['deleted'],
            'available_slice_num' => (int) ($this->rowsMax * $this->spare) - $counts['used'],
            'total_slice_num' => (int) ($this->rowsMax * $this->spare),
        ];
    }

    public function rewind(): void
    {
        $this->rows();
        [$this->ahead, $this->next] = [[], 0];
        $this->fetch();
    }

    public function valid(): bool
    {
        return $this->ahead !== [];
    }

    public function current(): mixed
    {
        return $this->ahead === [] ? null : $this->columns->values(end($this->ahead), Rows::ROW_HEAD_BYTES);
    }

    public function key(): mixed
    {
        return $this->ahead === [] ? null : Rows::key(end($this->ahead));
    }

    public function next(): void
    {
        array_pop($this->ahead);
        $this->fetch();
    }

    private function fetch(): void
    {
        if ($this->ahead === [] && $this->next >= 0) {
            [$this->next, $rows] = $this->rows->from($this->next);
            $this->ahead = array_reverse($rows);
        }
    }

    private function put(string $method, string $key, array $values, bool $insert, bool $change): bool
    {
        $this->rows();
        if (!$this->isKey($method, $key)) {
            return false;
        }
        $values = $this->columns->packed($values, $key);
        // That may have run code of the script, which may have ended the table.
        $done = $this->rows()->change($key, fn (?string $data) => ($data === null ? $insert : $change)
            ? $this->updated($data, $values)
            : false);
        return $done ?? $this->warn($method, "failed to $method('$key'), unable to allocate memory");
    }

    /** @param array<int, string> $values */
    private function updated(?string $data, array $values): string
    {
        $this->updates += (int) ($data !== null);
        return $this->columns->merge($data, $values);
    }

    private function step(string $method, string $key, string $column, mixed $by, int $sign): false|float|int
    {
        $this->rows();
        if (!$this->isKey($method, $key)) {
            return false;
        }
        $fault = $this->columns->faultOfNumber($column, $method);
        if ($fault !== null) {
            return $this->warn($method, $fault);
        }
        $by = $this->columns->number($column, $by, $sign);
        $result = 0;
        $done = $this->rows()->change($key, function (?string $data) use ($column, $by, &$result): string {
            [$data, $result] = $this->columns->step($data, $column, $by);
            return $data;
        });
        return $done === null ? $this->warn($method, 'unable to allocate memory') : $result;
    }

    private function rows(): Rows
    {
        return $this->rows ?? throw new \Error('table is not created or has been destroyed');
    }

    private function isKey(string $method, string $key): bool
    {
        $length = strlen($key);
        return ($length > 0 && $length <= Rows::KEY_BYTES_MAX) || $this->warn($method, $length === 0
            ? 'key must not be empty'
            : 'key length exceeds the limit of ' . Rows::KEY_BYTES_MAX . ' bytes');
    }

    private function isExpectable(string $method, array $expected): bool
    {
        if ($expected === []) {
            return $this->warn($method, 'expected values must not be empty');
        }
        foreach (array_keys($expected) as $name) {
            if (!is_string($name) || !$this->columns->has($name)) {
                return $this->warn($method, is_string($name)
                    ? "column[$name] does not exist" : 'expected values must use column names');
            }
        }
        return true;
    }

    private function warn(string $method, string $message): bool
    {
        trigger_error(self::class . "::$method(): $message", E_USER_WARNING);
        return false;
    }
}
