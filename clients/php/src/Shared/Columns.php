<?php

declare(strict_types=1);

namespace Wsd\Shared;

/** The columns of a Swoole\Table, and the bytes of their values: 8 of a number, 8 and the most of a string. */
final class Columns
{
    private const INT = 1;
    private const FLOAT = 2;
    private const STRING = 3;

    /** @var array<string, array{type: int, at: int, bytes: int, name: string}> */
    private array $columns = [];
    private int $bytes = 0;

    /** @return string|null what is wrong with it */
    public function add(string $name, int $type, int $size): ?string
    {
        if ($type < self::INT || $type > self::STRING) {
            return 'unknown column type';
        }
        if (isset($this->columns[$name])) {
            return "column[$name] already exists";
        }
        $bytes = $type === self::STRING ? ($size + 7) & ~7 : 8;
        $this->columns[$name] = ['type' => $type, 'at' => $this->bytes, 'bytes' => $bytes, 'name' => $name];
        $this->bytes += $bytes + ($type === self::STRING ? 8 : 0);
        return null;
    }

    public function has(string $name): bool
    {
        return isset($this->columns[$name]);
    }

    public function count(): int
    {
        return count($this->columns);
    }

    /** Bytes of a row's data. */
    public function bytes(): int
    {
        return $this->bytes;
    }

    /** Bytes of a row's data in Swoole's memory, where a length takes 4 bytes. */
    public function bytesInSwoole(): int
    {
        $strings = array_filter($this->columns, fn (array $column) => $column['type'] === self::STRING);
        return $this->bytes - 4 * count($strings);
    }

    /** What has to be the same in each process. */
    public function shape(): string
    {
        return json_encode(array_values($this->columns), JSON_INVALID_UTF8_SUBSTITUTE);
    }

    /** @return array<string, int|float|string> */
    public function values(string $data, int $at): array
    {
        $values = [];
        foreach ($this->columns as $name => $column) {
            $values[$name] = self::read($data, $at, $column);
        }
        return $values;
    }

    public function value(string $data, int $at, string $name): int|float|string|false
    {
        $column = $this->columns[$name] ?? null;
        return $column === null ? false : self::read($data, $at, $column);
    }

    /**
     * The bytes of values, by the place of their columns. What names no column is left out.
     *
     * To make text of a value may run code of the script, so this is done before the lock is taken.
     *
     * @param string|null $key for the warning where a string is cut to its column; null cuts none
     * @return array<int, string>
     */
    public function packed(array $values, ?string $key): array
    {
        $packed = [];
        foreach ($values as $name => $value) {
            $column = $this->columns[$name] ?? null;
            if ($column !== null) {
                $packed[$column['at']] = match ($column['type']) {
                    self::INT => pack('q', (int) $value),
                    self::FLOAT => pack('e', (float) $value),
                    self::STRING => $this->text($column, (string) $value, $key),
                };
            }
        }
        return $packed;
    }

    /** @param array<int, string> $packed put into data, or into that of a new row */
    public function merge(?string $data, array $packed): string
    {
        $data ??= str_repeat("\0", $this->bytes);
        foreach ($packed as $at => $bytes) {
            $data = substr_replace($data, $bytes, $at, strlen($bytes));
        }
        return $data;
    }

    /** @param array<int, string> $packed whether the data has these values, bit by bit */
    public function match(string $data, array $packed): bool
    {
        foreach ($packed as $at => $bytes) {
            if (substr_compare($data, $bytes, $at, strlen($bytes)) !== 0) {
                return false;
            }
        }
        return true;
    }

    /** @return string|null why the column cannot be counted up and down */
    public function faultOfNumber(string $name, string $method): ?string
    {
        return match ($this->columns[$name]['type'] ?? null) {
            null => "column[$name] does not exist",
            self::STRING => "can't execute '$method' on a string type column",
            default => null,
        };
    }

    /**
     * Counts a number up.
     *
     * @param int|float $by of the column's type
     * @return array{0: string, 1: int|float} the data, and the number
     */
    public function step(?string $data, string $name, int|float $by): array
    {
        $data ??= str_repeat("\0", $this->bytes);
        $column = $this->columns[$name];
        $old = self::read($data, 0, $column);
        [$new, $bytes] = is_int($by)
            ? [$sum = Numbers::add($old, $by), pack('q', $sum)]
            : [$sum = $old + $by, pack('e', $sum)];
        return [substr_replace($data, $bytes, $column['at'], 8), $new];
    }

    /** A number of the column's type. */
    public function number(string $name, mixed $value, int $sign): int|float
    {
        return $this->columns[$name]['type'] === self::FLOAT ? $sign * (float) $value : $sign * (int) $value;
    }

    private static function read(string $data, int $at, array $column): int|float|string
    {
        $at += $column['at'];
        return match ($column['type']) {
            self::INT => unpack('q', $data, $at)[1],
            self::FLOAT => unpack('e', $data, $at)[1],
            self::STRING => substr($data, $at + 8, unpack('V', $data, $at)[1]),
        };
    }

    private function text(array $column, string $value, ?string $key): string
    {
        if ($key !== null && strlen($value) > $column['bytes']) {
            // Swoole says this in its log, and not as PHP's warning.
            swoole_error_log(SWOOLE_LOG_WARNING, "[key=$key,field={$column['name']}]string value is too long");
            $value = substr($value, 0, $column['bytes']);
        }
        return pack('VV', strlen($value), 0) . $value;
    }
}
