//! PHP's `Wsd\Control` and Python's `wsd_control` ask only the server that was meant.

use std::os::unix::fs::symlink;

use super::*;

/// A client of the control socket in another language: how it is run, and what it says.
struct Language {
    name: &'static str,
    words: Vec<String>,
}

fn languages() -> Vec<Language> {
    let root = repository();
    let php = format!(
        "require '{}'; try {{ echo (new Wsd\\Control(['runtime_dir' => $argv[1]]))\
         ->pushConfirmed(5, 'secret'), \"\\n\"; }} catch (RuntimeException $refused) {{ \
         echo 'refused: ', $refused->getMessage(), \"\\n\"; }}",
        root.join("clients/php/autoload.php").display()
    );
    let python = format!(
        "import sys; sys.path.insert(0, '{}')\nfrom wsd_control import Control, Refused\n\
         try: print(Control(sys.argv[1]).push(5, 'secret'))\n\
         except Refused as refused: print('refused:', refused)",
        root.join("clients/python").display()
    );
    let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect();
    // Without an extension that can ask who listens, the owners in the directory decide.
    let plain = ["php", "-n", "-r", &php];
    let all = [
        Language { name: "php", words: words(&["php", "-r", &php]) },
        Language { name: "php -n", words: words(&plain) },
        Language { name: "python", words: words(&["python3", "-c", &python]) },
    ];
    let there = |language: &Language| {
        let version = std::process::Command::new(&language.words[0]).arg("--version").output();
        if version.is_err() {
            eprintln!("{} is not there: nothing is shown of it", language.name);
        }
        version.is_ok()
    };
    all.into_iter().filter(there).collect()
}

impl Language {
    async fn push(&self, directory: &Path) -> String {
        let mut program = Command::new(&self.words[0]);
        program.args(&self.words[1..]).arg(directory);
        command(&mut program).await.ok()
    }
}

const QUEUED: &str = r#"{"ok":true,"verdict":"queued"}"#;

#[tokio::test]
async fn a_push_from_php_or_python_is_read_by_no_stranger() {
    if !two_users("a_push_from_php_or_python_is_read_by_no_stranger") {
        return;
    }
    let area = Area::new();
    let place = area.theirs().join("run");
    let pretender = Pretender::start(area.uid(), &place, std::process::id(), QUEUED).await;
    let ours = area.path("ours");
    std::fs::create_dir(&ours).unwrap();
    for language in languages() {
        let said = language.push(&place).await;
        assert!(
            said.starts_with("refused: ") && said.contains("uid"),
            "{}: {said}",
            language.name
        );
        // By way of a link of theirs, and of a socket of theirs in a directory of ours.
        let link = area.theirs().join("link");
        area.do_as_nobody(&format!("ln -sfn {} link", ours.display())).await;
        let said = language.push(&link).await;
        assert!(said.contains("is a link"), "{}: {said}", language.name);
        std::fs::hard_link(place.join("wsd.sock"), ours.join("wsd.sock")).unwrap();
        std::fs::write(ours.join("wsd.lock"), "").unwrap();
        let said = language.push(&ours).await;
        assert!(said.starts_with("refused: "), "{}: {said}", language.name);
        // And of a directory that they could write to.
        std::fs::remove_file(ours.join("wsd.sock")).unwrap();
        mode(&ours, 0o777);
        let said = language.push(&ours).await;
        assert!(said.starts_with("refused: "), "{}: {said}", language.name);
        mode(&ours, 0o755);
    }
    assert_eq!(pretender.heard(), "");
}

#[tokio::test]
async fn php_and_python_reach_the_server_that_is_meant() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("run");
    let me = Uid::effective().as_raw();
    let mut pretender = Pretender::start(me, &place, std::process::id(), QUEUED).await;
    symlink(&place, dir.path().join("link")).unwrap();
    for language in languages() {
        for path in [place.clone(), dir.path().join("link")] {
            assert_eq!(language.push(&path).await, "queued\n", "{}", language.name);
        }
    }
    assert!(pretender.lives());
}

#[tokio::test]
async fn root_reaches_another_users_server_from_php_and_python_where_only_root_made_its_place() {
    if !two_users("root_reaches_another_users_server_from_php_and_python") {
        return;
    }
    let area = Area::below(Path::new("/run"));
    let _pretender =
        Pretender::start(area.uid(), &area.theirs(), std::process::id(), QUEUED).await;
    for language in languages() {
        assert_eq!(language.push(&area.theirs()).await, "queued\n", "{}", language.name);
    }
}
