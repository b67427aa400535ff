//! What stands behind the `?` of a request.

use http::request::Parts;

use super::answer::Fault;

/// The parameters of a request.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads them; each may come once, and only those that are known.
    ///
    /// # Errors
    /// Where one is unknown or comes twice.
    pub fn of(request: &Parts, known: &[&str]) -> Result<Query, Fault> {
        let text = request.uri.query().unwrap_or_default();
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            if !known.contains(&name.as_ref()) {
                return Err(Fault::bad(match known {
                    [] => format!("there is no parameter {name:?}"),
                    known => format!("there is no parameter {name:?}; {} are", known.join(", ")),
                }));
            }
            if pairs.iter().any(|(other, _)| *other == name) {
                return Err(Fault::bad(format!("the parameter {name:?} comes twice")));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Query(pairs))
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
        let wrong = |_| Fault::bad(format!("{name} is {text:?}; write {what}"));
        text.parse().map(Some).map_err(wrong)
    }
}
