<?php

declare(strict_types=1);

namespace Wsd;

/**
 * Loads the classes of Swoole and LaravelS by all of their names, and says of any other where to
 * read: docs/swoole.md.
 */
final class SwooleNames
{
    private const PREFIXES = [
        'swoole\\' => __DIR__ . '/../swoole/',
        'openswoole\\' => __DIR__ . '/../openswoole/',
        'hhxsv5\\laravels\\' => __DIR__ . '/../laravels/',
    ];
    /** The names up to Swoole 4.8 which are not made of the new one's parts. */
    private const OLD = [
        'swoole_timer' => 'swoole\\timer',
        'swoole_connection_iterator' => 'swoole\\connection\\iterator',
        'swoole_websocket_closeframe' => 'swoole\\websocket\\closeframe',
    ];

    /** @var array<string, string>|null files by name in small letters */
    private static ?array $files = null;
    /** @var list<\Closure> the loaders of this class */
    private static array $loaders = [];
    /** Whether Swoole's functions are declared. */
    private static bool $functions = true;

    /** @internal before any loader, so that each name is found however it is written, and after all others */
    public static function register(): void
    {
        self::$loaders = [self::load(...), self::miss(...)];
        spl_autoload_register(self::$loaders[0], true, true);
        spl_autoload_register(self::$loaders[1]);
        register_shutdown_function(self::ended(...));
        self::$functions = false;
        self::prepended() || self::functions();
    }

    /** Whether there is a class, interface or trait of that name, in any spelling. */
    public static function knows(string $class): bool
    {
        $name = self::canonical(strtolower(ltrim($class, '\\')));
        return isset(self::files()[$name]) || class_exists($class, false) || interface_exists($class, false);
    }

    /** What is to be said of a name that is not there. */
    public static function sentence(string $what): string
    {
        return "wsd has no $what: docs/swoole.md says what there is instead";
    }

    private static function load(string $class): void
    {
        self::functions();
        $asked = strtolower($class);
        $name = self::canonical($asked);
        $file = self::files()[$name] ?? null;
        if ($file === null) {
            return;
        }
        require_once $file;
        self::alias($name, $class);
    }

    /** Declares Swoole's functions, but for those that somebody has declared. */
    private static function functions(): void
    {
        if (!self::$functions) {
            self::$functions = true;
            require __DIR__ . '/../swoole/functions.php';
        }
    }

    /**
     * Whether a file that PHP runs before the script (auto_prepend_file) loads this package and goes
     * on. What the file loads next may declare functions of those names, and PHP ends a script that
     * declares one twice. So they are declared when the first class is looked for.
     */
    private static function prepended(): bool
    {
        $trace = debug_backtrace(DEBUG_BACKTRACE_IGNORE_ARGS);
        $loaders = array_filter($trace, fn (array $frame) => isset($frame['file']));
        $first = end($loaders);
        $script = realpath((string) ($_SERVER['SCRIPT_FILENAME'] ?? ''));
        if ($first === false || $first['file'] === $script || !is_readable($first['file'])) {
            return false;
        }
        $rest = implode('', array_slice((array) file($first['file']), $first['line']));
        return preg_match('/\\b(require|include|function|eval)/i', $rest) === 1;
    }

    /** Gives a class all of its names at once, since a type in a signature loads nothing. */
    private static function alias(string $name, string $asked): void
    {
        if (!class_exists($name, false) && !interface_exists($name, false)) {
            return;
        }
        $declared = (new \ReflectionClass($name))->getName();
        $aliases = [$asked];
        if (str_starts_with($name, 'swoole\\')) {
            $aliases[] = strtr($declared, '\\', '_');
            // Some of OpenSwoole's classes have more than Swoole's of that name.
            if (!isset(self::files()["open$name"])) {
                $aliases[] = "Open$declared";
            }
        }
        foreach (self::OLD as $old => $new) {
            if ($new === $name) {
                $aliases[] = $old;
            }
        }
        foreach ($aliases as $alias) {
            if (!class_exists($alias, false) && !interface_exists($alias, false)) {
                class_alias($declared, $alias);
            }
        }
    }

    /** The new name, in small letters, for any spelling. */
    private static function canonical(string $name): string
    {
        if (isset(self::OLD[$name])) {
            return self::OLD[$name];
        }
        if (str_starts_with($name, 'openswoole\\')) {
            return isset(self::files()[$name]) ? $name : substr($name, 4);
        }
        return str_starts_with($name, 'swoole_') ? strtr($name, '_', '\\') : $name;
    }

    /** @return array<string, string> */
    private static function files(): array
    {
        if (self::$files === null) {
            self::$files = [];
            foreach (self::PREFIXES as $prefix => $directory) {
                $all = new \RecursiveDirectoryIterator($directory, \FilesystemIterator::SKIP_DOTS);
                foreach (new \RecursiveIteratorIterator($all) as $path => $file) {
                    $name = strtolower(strtr(substr($path, strlen($directory), -4), '/', '\\'));
                    self::$files[$prefix . $name] = $path;
                }
            }
            unset(self::$files['swoole\\names'], self::$files['swoole\\constants'], self::$files['swoole\\functions']);
        }
        return self::$files;
    }

    /**
     * The last loader: a class of Swoole that no loader has.
     *
     * Only what cannot go on without the class is answered with an error; class_exists() and its
     * like have asked whether the class is there, and that is answered by PHP.
     */
    private static function miss(string $class): void
    {
        if (!SwooleScript::isSwoole($class) || self::byOthers($class)) {
            return;
        }
        $caller = debug_backtrace(DEBUG_BACKTRACE_IGNORE_ARGS, 2);
        if (isset($caller[0]['file'])) {
            SwooleScript::look();
            throw new \Error(self::sentence("class $class"));
        }
    }

    /** Loaders that were registered after these are asked before anything is said. */
    private static function byOthers(string $class): bool
    {
        foreach (spl_autoload_functions() as $loader) {
            if (!in_array($loader, self::$loaders, true)) {
                $loader($class);
            }
        }
        return class_exists($class, false) || interface_exists($class, false) || trait_exists($class, false);
    }

    /** PHP calls no loader for a function or a constant: the error it ended with names them. */
    private static function ended(): void
    {
        $message = error_get_last()['message'] ?? '';
        if (self::hint($message) !== null) {
            SwooleScript::look();
        }
    }

    /** @return string|null the sentence, where the message is of a function or constant of Swoole that is missing */
    public static function hint(string $message): ?string
    {
        $missing = '/(?:undefined (function) |Undefined (constant) ")(\\\\?(?:[A-Za-z]+\\\\)*swoole_?[\w\\\\]*)/i';
        return preg_match($missing, $message, $found) === 1
            ? self::sentence(($found[1] ?: $found[2]) . " $found[3]" . ($found[1] ? '()' : ''))
            : null;
    }
}
