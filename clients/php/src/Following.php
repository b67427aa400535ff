<?php

declare(strict_types=1);

namespace Wsd;

/** Whether a script has something to do behind a call: then the call has to come back. */
final class Following
{
    /** What opens a block, by the word before it: of code that is run again, of code that is elsewhere. */
    private const LOOPS = [T_WHILE, T_FOR, T_FOREACH, T_DO];
    private const ELSEWHERE = [T_FUNCTION, T_CLASS, T_INTERFACE, T_TRAIT, T_ENUM, T_NAMESPACE];
    private const BRANCHES = [T_IF, T_ELSE, T_ELSEIF, T_TRY, T_CATCH, T_SWITCH, T_MATCH];
    private const OTHER_BRANCHES = [T_ELSE, T_ELSEIF, T_CATCH];
    private const NOTHING = [';', '}', ')', ']', ','];

    /** @var list<\PhpToken> without spaces and comments */
    private array $tokens;

    private function __construct(string $source)
    {
        $tokens = \PhpToken::tokenize($source);
        $this->tokens = array_values(array_filter($tokens, fn (\PhpToken $token) => !$token->isIgnorable()));
    }

    /** Whether anything follows the calls that are under way, in the functions that made them or in the script. */
    public static function calls(): bool
    {
        // Without ext-tokenizer nobody can tell.
        if (!class_exists('PhpToken')) {
            return false;
        }
        foreach (debug_backtrace(DEBUG_BACKTRACE_IGNORE_ARGS) as $frame) {
            $file = $frame['file'] ?? '';
            if (!is_file($file) || str_starts_with($file, dirname(__DIR__) . '/')) {
                continue;
            }
            $follows = (new self((string) file_get_contents($file)))->follows($frame['line'], $frame['function']);
            if ($follows !== null) {
                return $follows;
            }
        }
        return false;
    }

    /** Whether something follows a call on that line; null where the function that made it ends there. */
    public function follows(int $line, string $function): ?bool
    {
        $blocks = [];
        $last = null;
        $called = false;
        for ($at = 0; isset($this->tokens[$at]); $at++) {
            $token = $this->tokens[$at];
            if ($called && !in_array($token->text, self::NOTHING, true) && $token->id !== T_CLOSE_TAG) {
                if ($token->id === T_INLINE_HTML && trim($token->text) === '') {
                    continue;
                }
                if ($token->is(self::OTHER_BRANCHES) || $token->is(self::ELSEWHERE)) {
                    $at = $this->end($at);
                    continue;
                }
                return $token->id !== T_EXIT;
            }
            if ($token->is([...self::LOOPS, ...self::ELSEWHERE, ...self::BRANCHES]) && !$called) {
                $last = $token->id;
            } elseif ($token->text === ';') {
                $last = null;
            } elseif (in_array($token->text, ['{', '${', '{$'], true)) {
                $blocks[] = $last;
                $last = null;
            } elseif ($token->text === '}') {
                $block = array_pop($blocks);
                if ($called && in_array($block, self::LOOPS, true)) {
                    return true;
                }
                if ($called && $block === T_FUNCTION) {
                    return null;
                }
            }
            if (!$called && $token->line >= $line && $this->isCall($at, $function)) {
                $called = true;
                $at = $token->text === ')' ? $at : $this->closing($at + 1);
            }
        }
        return $called ? false : null;
    }

    /** A call by name; what is called without one, such as a closure, ends its statement. */
    private function isCall(int $at, string $function): bool
    {
        [$text, $next] = [$this->tokens[$at]->text, $this->tokens[$at + 1]->text ?? ''];
        return $function === '{closure}' || str_starts_with($function, '{closure:')
            ? $text === ')' && $next === ';'
            : $text === $function && $next === '(';
    }

    /** Where the parenthesis that opens there is closed. */
    private function closing(int $at): int
    {
        for ($depth = 0; isset($this->tokens[$at]); $at++) {
            $depth += ['(' => 1, ')' => -1][$this->tokens[$at]->text] ?? 0;
            if ($depth === 0) {
                return $at;
            }
        }
        return $at;
    }

    /** Where the block that begins after this word ends. */
    private function end(int $at): int
    {
        for ($depth = 0; isset($this->tokens[$at]); $at++) {
            $text = $this->tokens[$at]->text;
            $depth += ['{' => 1, '${' => 1, '{$' => 1, '}' => -1][$text] ?? 0;
            if ($depth === 0 && ($text === '}' || $text === ';')) {
                return $at;
            }
        }
        return $at;
    }
}
