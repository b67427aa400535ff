//! The command line of an application process.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::errors::Wrong;
use super::list::words;
use super::value::{Raw, Setting};

/// A program and its arguments; empty where there is none. No shell reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Command(pub Vec<String>);

impl Setting for Command {
    const UNIT: &'static str = "text, or list of program and arguments";

    fn read(raw: &Raw, _: &Path) -> Result<Command, Wrong> {
        let words = match raw {
            Raw::Text(text) => split(text)?,
            Raw::Bare(text) if !text.starts_with('[') => split(text)?,
            _ => words(raw)?,
        };
        if words.iter().any(|word| word.contains('\0')) {
            return Err(Wrong::new("holds a NUL byte", "write arguments without one"));
        }
        if words.first().is_some_and(String::is_empty) {
            return Err(Wrong::new("names an empty program", "write [\"php\", \"server.php\"]"));
        }
        Ok(Command(words))
    }

    fn show(&self) -> String {
        self.0.show()
    }
}

/// Splits at blanks; quotes and backslashes keep blanks together, as in a shell.
fn split(text: &str) -> Result<Vec<String>, Wrong> {
    let unfinished = |what: &str| {
        Wrong::new(format!("has {what} that is not finished"), "close it, or write a list")
    };
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\\' => {
                let next = chars.next().ok_or_else(|| unfinished("a backslash"))?;
                word.get_or_insert_default().push(next);
            }
            '\'' | '"' => {
                let quoted = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or_else(|| unfinished("a quotation"))? {
                        end if end == char => break,
                        '\\' if char == '"' => {
                            quoted.push(chars.next().ok_or_else(|| unfinished("a quotation"))?);
                        }
                        other => quoted.push(other),
                    }
                }
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_splits_as_in_a_shell_without_being_given_to_one() {
        let split = |text: &str| split(text).unwrap();
        assert_eq!(split("php -d x=1 'a b.php'"), ["php", "-d", "x=1", "a b.php"]);
        assert_eq!(split(r#"a\ b "c \" d"e '' $HOME;"#), ["a b", "c \" de", "", "$HOME;"]);
        assert!(split("  ").is_empty());
    }

    #[test]
    fn an_unfinished_quotation_is_refused() {
        for text in ["'a", "\"a", "\"a\\", "a\\"] {
            assert!(split(text).is_err(), "{text}");
        }
    }
}
