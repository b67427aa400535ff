//! The tables of Swoole's and LaravelS's names, in English and Chinese: made of `docs/names.json`,
//! which is held against the PHP code. `BLESS=1 cargo test --test names` writes them anew.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

/// The names of one section.
#[derive(Deserialize)]
struct Table {
    /// `docs/PAGE.md`, and `docs/PAGE.zh-CN.md`.
    page: String,
    section: String,
    /// What the names are, in English and Chinese.
    head: [String; 2],
    /// State, names, and what is to be said of them in English and in Chinese.
    rows: Vec<[String; 4]>,
}

/// `works`, `differs` and `absent` for readers, in English and Chinese.
fn state(row: &[String; 4], language: usize) -> &'static str {
    match row[0].as_str() {
        "works" => ["works", "支持"][language],
        "differs" => ["differs", "不同"][language],
        "absent" => ["not there", "没有"][language],
        other => panic!("{}: {other} is no state", row[1]),
    }
}

fn markdown(table: &Table, language: usize) -> String {
    let mut text = format!("| {} | | |\n|---|---|---|\n", table.head[language]);
    for row in &table.rows {
        let names = match language {
            0 => row[1].clone(),
            _ => {
                row[1].replace(", ", "、").replace("(new)", "(新增)").replace("any other", "其他")
            }
        };
        text += &format!("| {names} | {} | {} |\n", state(row, language), row[2 + language]);
    }
    text
}

fn tables() -> Vec<Table> {
    serde_json::from_str(&std::fs::read_to_string("docs/names.json").unwrap()).unwrap()
}

#[test]
fn the_pages_have_the_tables_of_names_in_both_languages() {
    for table in tables() {
        for (language, end) in ["md", "zh-CN.md"].into_iter().enumerate() {
            let path = format!("docs/{}.{end}", table.page);
            let page = std::fs::read_to_string(&path).unwrap();
            let mark =
                format!("<!-- names: {}, generated, see tests/names.rs -->\n", table.section);
            let (before, rest) =
                page.split_once(&mark).unwrap_or_else(|| panic!("{path} lacks {mark}"));
            let (is, after) = rest.split_once("<!-- end -->").expect("the end of the table");
            let ought = markdown(&table, language);
            if std::env::var_os("BLESS").is_some() {
                let page = format!("{before}{mark}{ought}<!-- end -->{after}");
                std::fs::write(&path, page).unwrap();
            } else {
                assert_eq!(is, ought, "{path}: BLESS=1 rewrites the table");
            }
        }
    }
}

#[test]
fn nothing_differs_or_is_absent_without_a_word_on_it() {
    for table in tables() {
        for row in table.rows.iter().filter(|row| row[0] != "works") {
            assert!(row[2..].iter().all(|text| !text.is_empty()), "{}: how, or why?", row[1]);
            assert!(!row[2].contains("later"), "{}: later is no reason", row[1]);
        }
    }
}

#[test]
fn every_name_is_as_the_php_code_has_it() {
    assert!(Path::new("clients/php/autoload.php").exists());
    let ran = Command::new("php").args(["-n", "tests/names.php"]).output().expect("PHP");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(said, "", "docs/names.json and clients/php differ");
}
