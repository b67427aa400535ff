//! What stands behind the `?` of a request.

use http::request::Parts;
use percent_encoding::percent_decode_str;

use super::answer::Fault;
use crate::config::digits;

/// The parameters of a request.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads them; each may come once, and only those that are known.
    ///
    /// # Errors
    /// Where one is unknown, comes twice or is not UTF-8.
    pub fn of(request: &Parts, known: &[&str]) -> Result<Query, Fault> {
        Query::with_several(request, known, "")
    }

    /// As [`of`](Self::of), where one may come more than once.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn with_several(request: &Parts, known: &[&str], several: &str) -> Result<Query, Fault> {
        let text = request.uri.query().unwrap_or_default();
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            if !known.contains(&name.as_str()) {
                return Err(Fault::bad(match known {
                    [] => format!("there is no parameter {name:?}"),
                    known => format!("there is no parameter {name:?}; {} are", known.join(", ")),
                }));
            }
            if name != several && pairs.iter().any(|(other, _)| *other == name) {
                return Err(Fault::bad(format!("the parameter {name:?} comes twice")));
            }
            pairs.push((name, value));
        }
        Ok(Query(pairs))
    }

    /// All of one that may come more than once.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// One as text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// One as another type.
    ///
    /// # Errors
    /// Where it is none.
    pub fn get<T: std::str::FromStr>(&self, name: &str, what: &str) -> Result<Option<T>, Fault> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let wrong = || Fault::bad(format!("{name} is {text:?}; write {what}"));
        // As in a path: a sign is none of a number's digits, and no 0 stands before others.
        if text.starts_with('+') || (text.len() > 1 && text.starts_with('0')) {
            return Err(wrong());
        }
        text.parse().map(Some).map_err(|_| wrong())
    }
}

/// A number as it is written: its digits, the first of which is no 0 before another.
pub(super) fn number(text: &str) -> Option<u64> {
    digits(text).filter(|_| text == "0" || !text.starts_with('0'))
}

/// A name or value as it was before a form encoded it.
fn decoded(text: &str) -> Result<String, Fault> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    let decoded =
        decoded.map_err(|_| Fault::bad(format!("the parameter {text:?} is not UTF-8")))?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Result<Query, Fault> {
        let request = http::Request::builder().uri(format!("/x?{text}")).body(()).unwrap();
        Query::with_several(&request.into_parts().0, &["room", "except"], "room")
    }

    #[test]
    fn a_name_is_what_was_encoded_and_never_something_like_it() {
        for (text, name) in [
            ("room=caf%C3%A9", "caf\u{e9}"),
            ("room=a+b", "a b"),
            ("room=a%2Bb", "a+b"),
            ("room=a%26except%3D7", "a&except=7"),
            ("room=%252F", "%2F"),
            ("room=a=b", "a=b"),
            ("room", ""),
            ("&room=a&", "a"),
        ] {
            assert_eq!(query(text).unwrap().text("room"), Some(name), "{text}");
        }
        assert!(query("room=%ff").is_err());
        assert!(query("%ff=x").is_err());
    }

    #[test]
    fn a_number_is_written_in_one_way() {
        assert_eq!(number("12"), Some(12));
        for text in ["", "+12", "-1", "012", "00", "1.0", "1e3", " 1", "99999999999999999999"] {
            assert_eq!(number(text), None, "{text}");
        }
        let except = |text: &str| query(text).unwrap().get::<u64>("except", "a number").is_ok();
        assert!(except("except=12") && except("except=0"));
        assert!(!except("except=%2B12") && !except("except=012"));
    }

    #[test]
    fn one_may_come_more_than_once_and_no_other() {
        let several = query("room=a&except=1&room=b").unwrap();
        assert_eq!(several.all("room").collect::<Vec<_>>(), ["a", "b"]);
        assert!(query("except=1&except=1").is_err());
        assert!(query("rooms=a").is_err());
    }
}
