<?php

declare(strict_types=1);

namespace Wsd;

/** Sees that code has changed, for development: each file's size and time of change, looked at twice a second. */
final class Watcher
{
    private const EVERY_NS = 500_000_000;
    private const SUFFIXES = ['php', 'env', 'json', 'yaml', 'yml', 'ini', 'toml'];
    /** Whole trees that no developer edits. */
    private const SKIPPED = ['vendor', 'node_modules', 'storage', '.git', 'bootstrap/cache'];
    private const FILES_MAX = 20_000;

    private int $next = 0;
    private string $seen = '';

    /** @param list<string> $paths directories and files */
    public function __construct(private array $paths)
    {
        foreach ($paths as $path) {
            if (!file_exists($path)) {
                throw new \RuntimeException("watch: there is no $path");
            }
        }
        $this->changed();
    }

    /** Whether something has changed since the last look. */
    public function changed(): bool
    {
        $now = hrtime(true);
        if ($now < $this->next) {
            return false;
        }
        clearstatcache();
        $seen = '';
        foreach ($this->files() as $path => $file) {
            $seen = hash('xxh3', "$seen $path {$file->getMTime()} {$file->getSize()}");
        }
        $this->next = hrtime(true) + self::EVERY_NS;
        [$before, $this->seen] = [$this->seen, $seen];
        return $before !== '' && $before !== $seen;
    }

    /** @return iterable<string, \SplFileInfo> */
    private function files(): iterable
    {
        $count = 0;
        foreach ($this->paths as $root) {
            foreach (is_dir($root) ? self::below($root) : [$root => new \SplFileInfo($root)] as $path => $file) {
                if ($file->isFile() && ($path === $root || in_array($file->getExtension(), self::SUFFIXES, true))) {
                    yield $path => $file;
                    if (++$count >= self::FILES_MAX) {
                        return;
                    }
                }
            }
        }
    }

    /** @return iterable<string, \SplFileInfo> */
    private static function below(string $root): iterable
    {
        $all = new \RecursiveDirectoryIterator($root, \FilesystemIterator::SKIP_DOTS);
        $wanted = new \RecursiveCallbackFilterIterator($all, fn (\SplFileInfo $file, string $path): bool =>
            !in_array(ltrim(substr($path, strlen($root)), '/'), self::SKIPPED, true)
            && !in_array($file->getFilename(), ['vendor', 'node_modules', '.git'], true));
        return new \RecursiveIteratorIterator($wanted, \RecursiveIteratorIterator::LEAVES_ONLY,
            \RecursiveIteratorIterator::CATCH_GET_CHILD);
    }
}
