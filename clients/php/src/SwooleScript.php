<?php

declare(strict_types=1);

namespace Wsd;

/** A look through what a script names, so that all that is missing is said at once, at the start. */
final class SwooleScript
{
    /** Names without the word Swoole that are Swoole's: functions and classes of coroutines. */
    private const SHORT_FUNCTIONS = ['go'];
    private const SHORT_CLASSES = ['co', 'chan'];
    /** Functions of PHP that are false here, and what to write for each. */
    private const FALSE_HERE = [
        'move_uploaded_file' => 'is always false here, since PHP itself did not receive the upload: '
            . "write rename(\$file['tmp_name'], \$to)",
        'is_uploaded_file' => 'is always false here, since PHP itself did not receive the upload: '
            . "write is_file(\$file['tmp_name'])",
    ];
    private const PREFIXES = ['swoole\\', 'openswoole\\', 'hhxsv5\\', 'co\\', 'swoole_'];

    private static bool $looked = false;

    /** @var list<\PhpToken> without spaces and comments */
    private array $tokens;
    /** @var array<string, string> the class behind a name that `use` gave it, by the name in small letters */
    private array $imports = [];
    private bool $namespaced = false;
    /** @var array<string, array{line: int, sentence: string}> */
    private array $found = [];

    /** Whether a class of that name can only be Swoole's or LaravelS's. */
    public static function isSwoole(string $class): bool
    {
        $name = strtolower(ltrim($class, '\\'));
        foreach (self::PREFIXES as $prefix) {
            if (str_starts_with($name, $prefix)) {
                return true;
            }
        }
        return in_array($name, self::SHORT_CLASSES, true);
    }

    /** Says, once and on standard error, every name of Swoole that is not there in the files read so far. */
    public static function look(): void
    {
        // Without ext-tokenizer each name is said when it is met.
        if (self::$looked || App::isAppProcess() || !class_exists('PhpToken')) {
            return;
        }
        self::$looked = true;
        foreach (get_included_files() as $file) {
            if (str_starts_with($file, dirname(__DIR__) . '/') || str_contains($file, '/vendor/')) {
                continue;
            }
            foreach (self::of((string) @file_get_contents($file)) as ['line' => $line, 'sentence' => $sentence]) {
                fwrite(STDERR, 'wsd: ' . basename($file) . ":$line: $sentence\n");
            }
        }
    }

    /** @return list<array{line: int, sentence: string}> of each name in a script that is not there, or not the same */
    public static function of(string $source): array
    {
        // Most files name nothing of it, and tokens cost more than a search.
        if (!preg_match('/swoole|hhxsv5|_uploaded_file|\bgo\s*\(|\bco(?:::|\\\\)|\bchan\b/i', $source)) {
            return [];
        }
        try {
            $look = new self(\PhpToken::tokenize($source));
        } catch (\CompileError) {
            return [];
        }
        $look->run();
        return array_values($look->found);
    }

    /** @param list<\PhpToken> $tokens */
    private function __construct(array $tokens)
    {
        $this->tokens = array_values(array_filter($tokens, fn (\PhpToken $token) => !$token->isIgnorable()));
    }

    private function run(): void
    {
        $depth = 0;
        for ($at = 0; isset($this->tokens[$at]); $at++) {
            $token = $this->tokens[$at];
            $depth += match ($token->text) {
                '{', '${' => 1,
                '}' => -1,
                default => 0,
            };
            if ($token->id === T_NAMESPACE && $this->text($at + 1) !== '\\') {
                $this->namespaced = $this->text($at + 1) !== '{';
                $at++;
            } elseif ($token->id === T_USE && $this->text($at - 1) !== ')') {
                $at = $this->import($at + 1);
            } elseif ($token->is([T_STRING, T_NAME_QUALIFIED, T_NAME_FULLY_QUALIFIED])) {
                $this->name($at);
            }
        }
    }

    /** `use A\B, C as D;`, `use A\{B, C as D};`, `use function A\b;`: gives where it ends. */
    private function import(int $at): int
    {
        $kind = match ($this->id($at)) {
            T_FUNCTION => 'function',
            T_CONST => 'constant',
            default => 'class',
        };
        $at += $kind === 'class' ? 0 : 1;
        [$prefix, $name, $line] = ['', '', 0];
        for (; isset($this->tokens[$at]); $at++) {
            $token = $this->tokens[$at];
            if ($token->is([T_STRING, T_NAME_QUALIFIED, T_NAME_FULLY_QUALIFIED])) {
                $name = ltrim($prefix . $token->text, '\\');
                $line = $token->line;
                $short = substr((string) strrchr("\\$name", '\\'), 1);
                if ($this->id($at + 1) === T_AS) {
                    $short = $this->text($at + 2);
                    $at += 2;
                }
                if ($this->id($at + 1) !== T_NS_SEPARATOR) {
                    $this->imports[strtolower($short)] = $name;
                    $this->check($kind, $name, $line);
                }
            } elseif ($token->text === '{') {
                $prefix = "$name\\";
            } elseif ($token->text === ';') {
                return $at;
            }
        }
        return $at;
    }

    private function name(int $at): void
    {
        $token = $this->tokens[$at];
        $before = $this->id($at - 1);
        $members = [T_OBJECT_OPERATOR, T_NULLSAFE_OBJECT_OPERATOR, T_DOUBLE_COLON, T_FUNCTION, T_CONST, T_AS,
            T_CLASS, T_INTERFACE, T_TRAIT];
        if (in_array($before, $members, true)) {
            return;
        }
        $name = ltrim($token->text, '\\');
        $first = explode('\\', $name)[0];
        $full = $token->id === T_NAME_FULLY_QUALIFIED;
        if (!$full && isset($this->imports[strtolower($first)])) {
            $name = $this->imports[strtolower($first)] . substr($name, strlen($first));
        } elseif (!$full && $this->namespaced && $token->id === T_NAME_QUALIFIED) {
            return; // Of the namespace at hand.
        }
        if ($this->text($at + 1) === '(' && $before !== T_NEW) {
            $this->check('function', $name, $token->line);
        } elseif (preg_match('/^SWOOLE_[A-Z0-9_]+$/', $name)) {
            $this->check('constant', $name, $token->line);
        } elseif ($full || !$this->namespaced || str_contains($name, '\\')) {
            $this->check('class', $name, $token->line);
        }
    }

    private function check(string $kind, string $name, int $line): void
    {
        $ours = match ($kind) {
            'constant' => str_starts_with($name, 'SWOOLE_') && !defined($name),
            'function' => (self::isSwoole($name) || in_array(strtolower($name), self::SHORT_FUNCTIONS, true))
                && !function_exists($name),
            default => self::isSwoole($name) && !SwooleNames::knows($name) && !$this->isNamespace($name),
        };
        $what = $kind === 'function' ? "function $name()" : "$kind $name";
        $sentence = $kind === 'function' && isset(self::FALSE_HERE[strtolower($name)])
            ? "$name() " . self::FALSE_HERE[strtolower($name)]
            : ($ours ? SwooleNames::sentence($what) : null);
        if ($sentence !== null) {
            $this->found[strtolower($what)] ??= ['line' => $line, 'sentence' => $sentence];
        }
    }

    /** `use Swoole\Http;` names no class but the way to some. */
    private function isNamespace(string $name): bool
    {
        return in_array(strtolower($name), ['swoole\\http', 'swoole\\websocket', 'swoole\\connection',
            'openswoole\\http', 'openswoole\\websocket', 'hhxsv5\\laravels', 'hhxsv5\\laravels\\swoole'], true);
    }

    private function id(int $at): ?int
    {
        return $this->tokens[$at]->id ?? null;
    }

    private function text(int $at): string
    {
        return $this->tokens[$at]->text ?? '';
    }
}
