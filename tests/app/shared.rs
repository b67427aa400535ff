//! The directory that tables, atomics and locks live in: whose it is, and what is left in it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::process::Command;

use crate::harness::{Ran, command, until};
use crate::support::path;

/// Runs PHP code with the package, and that directory for what is shared.
async fn php(shared: &Path, code: &str) -> Ran {
    let mut php = Command::new("php");
    php.args(["-r", &format!("require '{}'; {code}", path("clients/php/autoload.php"))]);
    command(php.env("WSD_SHARED_DIR", shared)).await
}

#[tokio::test]
async fn a_directory_that_others_can_write_to_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let open = directory.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    let link = directory.path().join("link");
    let target = directory.path().join("target");
    std::fs::create_dir(&target).unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    for place in [open, link] {
        let ran = php(&place, "new Swoole\\Lock();").await;
        assert_eq!(ran.code, Some(255), "{ran:?}");
        let why = format!("{} is no directory of this user", place.display());
        assert!(format!("{ran:?}").contains(&why), "{ran:?}");
        assert!(format!("{ran:?}").contains("WSD_SHARED_DIR"), "{ran:?}");
    }
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0);
}

#[tokio::test]
async fn a_script_leaves_nothing_and_sweeps_what_killed_ones_have_left() {
    let directory = tempfile::tempdir().unwrap();
    let shared = directory.path().join("shared");
    // No process has that number, which is above the kernel's limit.
    for left in ["own-99999999-ab", "server-99999999-7"] {
        let left = shared.join(left);
        std::fs::create_dir_all(&left).unwrap();
        std::fs::write(left.join("lock"), "").unwrap();
        std::fs::write(left.join("table-0-0"), "rows").unwrap();
    }
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o700)).unwrap();
    let code = "$a = new Swoole\\Atomic(5); $t = new Swoole\\Table(64); \
                $t->column('n', Swoole\\Table::TYPE_INT); $t->create(); \
                $places = glob(getenv('WSD_SHARED_DIR') . '/*'); \
                echo $a->add(), ' ', $t->incr('k', 'n'), ' ', count($places);";
    let ran = php(&shared, code).await;
    assert_eq!((ran.stdout.as_str(), ran.code), ("6 1 1", Some(0)), "{ran:?}");
    assert_eq!(std::fs::read_dir(&shared).unwrap().count(), 0);
}

#[tokio::test]
async fn processes_that_start_at_once_share_what_the_first_of_them_has() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..5 {
        let shared = directory.path().join(format!("shared-{round}"));
        let go = directory.path().join(format!("go-{round}"));
        let here = directory.path().join(format!("here-{round}"));
        std::fs::create_dir(&here).unwrap();
        let code = format!(
            "$locks = [new Swoole\\Lock(), new Swoole\\Lock(), new Swoole\\Lock()]; \
             touch('{}/' . getmypid()); while (!is_file('{}')) {{ clearstatcache(); }} \
             Wsd\\Shared\\File::share({}); echo 'shared';",
            here.display(),
            go.display(),
            std::process::id(),
        );
        let let_go = async {
            until("all to be there", async || {
                (std::fs::read_dir(&here).unwrap().count() == 8).then_some(())
            })
            .await;
            std::fs::write(&go, "").unwrap();
        };
        let all = futures_util::future::join_all((0..8).map(|_| php(&shared, &code)));
        let (all, ()) = tokio::join!(all, let_go);
        for ran in all {
            assert_eq!((ran.stdout.as_str(), ran.code), ("shared", Some(0)), "{ran:?}");
        }
    }
}

#[tokio::test]
async fn forked_processes_share_and_lock_each_other_out() {
    let directory = tempfile::tempdir().unwrap();
    let code = "$t = new Swoole\\Table(64); $t->column('n', Swoole\\Table::TYPE_INT); \
                $t->create(); $l = new Swoole\\Lock(); $l->lock(); \
                if (($pid = pcntl_fork()) === 0) { $got = $l->lockwait(0.01); \
                for ($i = 0; $i < 500; $i++) { $t->incr('k', 'n'); } exit($got ? 1 : 0); } \
                for ($i = 0; $i < 500; $i++) { $t->incr('k', 'n'); } \
                pcntl_waitpid($pid, $status); \
                echo pcntl_wexitstatus($status), ' ', $t->get('k', 'n');";
    let ran = php(&directory.path().join("shared"), code).await;
    assert_eq!((ran.stdout.as_str(), ran.code), ("0 1000", Some(0)), "{ran:?}");
}

#[tokio::test]
async fn a_program_in_the_place_of_a_process_speaks_by_its_pipe_and_ends_as_it_does() {
    let directory = tempfile::tempdir().unwrap();
    let code = "$words = ['-c', 'read word; echo \"heard $word\"; exit 5']; \
                $run = fn ($p) => $p->exec('/bin/sh', $words); \
                $p = new Swoole\\Process($run, true, SOCK_STREAM); $p->start(); \
                $p->write(\"hello\\n\"); echo $p->read(), Swoole\\Process::wait()['code'], ' '; \
                $p = new Swoole\\Process(fn ($p) => $p->exec('/bin/cat', []), true, SOCK_STREAM); \
                $pid = $p->start(); $p->write('it runs'); echo $p->read(), ' '; \
                Swoole\\Process::kill($pid, SIGTERM); echo Swoole\\Process::wait()['signal'];";
    let ran = php(directory.path(), code).await;
    assert_eq!(ran.stdout, "heard hello\n5 it runs 15", "{ran:?}");
}

/// One that has ended before anybody asks for it, and one that was killed as a full memory does it.
#[tokio::test]
async fn how_a_program_in_the_place_of_a_process_ended_is_told_however_soon_that_was() {
    let directory = tempfile::tempdir().unwrap();
    let code = "$ends = fn ($words) => function () use ($words) { \
                    $run = fn ($p) => $p->exec('/bin/sh', ['-c', $words]); \
                    (new Swoole\\Process($run, true, SOCK_STREAM))->start(); \
                    return implode(' ', array_slice(Swoole\\Process::wait(), 1)); \
                }; \
                for ($try = 0; $try < 40; $try++) { $told[] = $ends('exit 5')(); } \
                echo implode(',', array_unique($told)), ',', $ends('kill -9 $$')();";
    let ran = php(directory.path(), code).await;
    assert_eq!(ran.stdout, "5 0,0 9", "{ran:?}");
}
