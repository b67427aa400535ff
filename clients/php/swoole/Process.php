<?php

declare(strict_types=1);

namespace Swoole;

use Wsd\ServerProcess;

/**
 * A process with a function of its own: of a server, by addProcess(), or forked by start(). What is
 * written at one end comes as one message at the other. docs/swoole.md says what differs.
 */
class Process
{
    use \Wsd\Missing;

    public const IPC_NOWAIT = 256;
    public const PIPE_MASTER = 1;
    public const PIPE_WORKER = 2;
    public const PIPE_READ = 3;
    public const PIPE_WRITE = 4;
    private const EAGAIN = 11;

    public $pipe = null;
    public $pid = 0;
    public $id = null;

    private \Closure $callback;
    /** @var resource|null this side's end, where it was forked */
    private $end = null;
    private ?ServerProcess $place = null;
    private float $timeout = -1;
    /** What read() has left of a message, where the pipe is a stream. */
    private string $rest = '';

    /**
     * @param bool $redirect_stdin_and_stdout what the function prints is written to the pipe
     * @param int $pipe_type SOCK_STREAM or SOCK_DGRAM, 0 for none
     * @param bool $enable_coroutine without effect
     */
    public function __construct(
        callable $callback,
        private bool $redirect_stdin_and_stdout = false,
        private int $pipe_type = SOCK_DGRAM,
        bool $enable_coroutine = false,
    ) {
        $this->callback = \Closure::fromCallable($callback);
    }

    /** @internal it is one of a server */
    public function belong(ServerProcess $place, int $number): void
    {
        [$this->place, $this->id] = [$place, $number];
    }

    /** @internal runs the function, in its process */
    public function run(): void
    {
        $this->pid = getmypid();
        if ($this->redirect_stdin_and_stdout) {
            ob_start(function (string $printed): string {
                $printed !== '' && $this->write($printed);
                return '';
            }, 1);
        }
        ($this->callback)($this);
    }

    /**
     * Forks, outside of a server. Needs ext-pcntl.
     *
     * @return int|false the pid of the child
     */
    public function start(): int|false
    {
        if ($this->place !== null) {
            return $this->warn('start', 'the server starts it');
        }
        self::needs('pcntl_fork', 'ext-pcntl');
        $type = $this->pipe_type === SOCK_STREAM ? STREAM_SOCK_STREAM : STREAM_SOCK_DGRAM;
        $ends = $this->pipe_type === 0 ? [null, null] : stream_socket_pair(STREAM_PF_UNIX, $type, 0);
        $pid = pcntl_fork();
        if ($pid < 0) {
            return false;
        }
        [$this->end, $other] = $pid === 0 ? array_reverse($ends) : $ends;
        $other !== null && fclose($other);
        if ($pid === 0) {
            $this->run();
            exit(0);
        }
        return $this->pid = $pid;
    }

    /** Sends a message to the other end: in a server, from any process to the function, or from it to worker 0. */
    public function write(string $data): int|false
    {
        if ($this->place !== null) {
            return $this->place->write((int) $this->id, $data) ? strlen($data) : false;
        }
        return $this->end === null ? $this->warn('write', 'no pipe, cannot write') : @fwrite($this->end, $data);
    }

    /** Waits for a message, of which it gives at most so many bytes; of a stream the rest comes next. */
    public function read(int $size = 8192): string|false
    {
        if ($this->place !== null) {
            $message = $this->rest !== '' ? $this->rest : $this->place->read((int) $this->id, $this->timeout);
            if ($message === null) {
                return false;
            }
            $this->rest = $this->pipe_type === SOCK_STREAM ? substr($message, $size) : '';
            return substr($message, 0, $size);
        }
        if ($this->end === null) {
            return $this->warn('read', 'no pipe, cannot read');
        }
        $read = [$this->end];
        $none = null;
        $micros = (int) (($this->timeout - (int) $this->timeout) * 1e6);
        if ($this->timeout >= 0 && !@stream_select($read, $none, $none, (int) $this->timeout, $micros)) {
            \Wsd\SwooleErrors::$last = self::EAGAIN;
            return false;
        }
        return @stream_socket_recvfrom($this->end, $size);
    }

    /** How long read() waits, in seconds. */
    public function setTimeout(float $seconds): bool
    {
        $this->timeout = $seconds;
        return true;
    }

    public function setBlocking(bool $blocking): bool
    {
        $this->timeout = $blocking ? -1 : 0;
        return true;
    }

    public function close(int $which = 0): bool
    {
        if ($this->end === null) {
            return false;
        }
        fclose($this->end);
        $this->end = null;
        return true;
    }

    public function exit(int $exit_code = 0): void
    {
        // The server may end, and this process be the last that uses what is shared.
        $this->place === null || \Wsd\Shared\File::leave();
        exit($exit_code);
    }

    /**
     * Runs another program in the place of this process, with the pipe as its standard input and output
     * where the process was made so. Needs ext-pcntl.
     */
    public function exec(string $exec_file, array $args): bool
    {
        self::needs('pcntl_exec', 'ext-pcntl');
        if ($this->redirect_stdin_and_stdout && $this->end !== null && is_executable($exec_file)) {
            self::needs('posix_kill', 'ext-posix');
            $this->execOnPipe([$exec_file, ...array_map(strval(...), $args)]);
        }
        return pcntl_exec($exec_file, $args);
    }

    public function name(string $process_name): bool
    {
        return function_exists('cli_set_process_title') && @cli_set_process_title($process_name);
    }

    public static function kill(int $pid, int $signal_no = 15): bool
    {
        self::needs('posix_kill', 'ext-posix');
        return posix_kill($pid, $signal_no);
    }

    /** @return array{pid: int, code: int, signal: int}|false */
    public static function wait(bool $blocking = true): array|false
    {
        self::needs('pcntl_wait', 'ext-pcntl');
        $pid = pcntl_wait($status, $blocking ? 0 : WNOHANG);
        return $pid < 1 ? false : [
            'pid' => $pid,
            'code' => pcntl_wifexited($status) ? pcntl_wexitstatus($status) : 0,
            'signal' => pcntl_wifsignaled($status) ? pcntl_wtermsig($status) : 0,
        ];
    }

    /** Calls a function at a signal; null gives the signal its usual effect. Needs ext-pcntl. */
    public static function signal(int $signal_no, ?callable $callback = null): bool
    {
        self::needs('pcntl_signal', 'ext-pcntl');
        pcntl_async_signals(true);
        return pcntl_signal($signal_no, $callback ?? SIG_DFL);
    }

    /**
     * PHP cannot make the pipe its own standard output, so this process stays: it passes signals on, and ends
     * as the program does.
     *
     * @param list<string> $command
     */
    private function execOnPipe(array $command): void
    {
        [$pid, $early] = [0, []];
        $pass = function (int $signal) use (&$pid, &$early): void {
            $pid === 0 ? $early[] = $signal : posix_kill($pid, $signal);
        };
        foreach ([SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGTERM] as $signal) {
            pcntl_signal($signal, $pass, false);
        }
        pcntl_async_signals(true);
        $program = proc_open($command, [$this->end, $this->end], $pipes);
        if ($program === false) {
            return;
        }
        // This asks the kernel, too: of a program that has ended by now, nobody else is told how.
        ['pid' => $pid, 'running' => $running, 'exitcode' => $code, 'termsig' => $signal] = proc_get_status($program);
        if ($running) {
            array_map($pass, $early);
            while (pcntl_waitpid($pid, $status) < 0 && pcntl_get_last_error() === PCNTL_EINTR);
            $signal = pcntl_wifsignaled($status) ? pcntl_wtermsig($status) : 0;
            $code = pcntl_wexitstatus($status);
        }
        if ($signal > 0) {
            // SIGKILL has no handler, and an attempt to set one is fatal.
            $signal === SIGKILL || pcntl_signal($signal, SIG_DFL);
            posix_kill(getmypid(), $signal);
        }
        exit($code);
    }

    private static function needs(string $function, string $extension): void
    {
        function_exists($function) || throw new \RuntimeException("Swoole\\Process needs $extension for this");
    }

    private function warn(string $method, string $message): bool
    {
        trigger_error(self::class . "::$method(): $message", E_USER_WARNING);
        return false;
    }
}
