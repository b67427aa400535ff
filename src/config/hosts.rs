//! Which names a request may call the server by: the values of `allowed_hosts`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::errors::Wrong;
use super::list::words;
use super::origin::Origin;
use super::text::quote;
use super::value::{Raw, Setting};

/// The value of `allowed_hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Hosts {
    /// `*`: every name.
    pub any: bool,
    /// `auto`: on a loopback listener a name of loopback or an address, elsewhere every name.
    pub auto: bool,
    /// Names allowed everywhere, in lower case and without a port.
    pub listed: Vec<String>,
}

impl Default for Hosts {
    fn default() -> Hosts {
        Hosts { any: false, auto: true, listed: Vec::new() }
    }
}

impl Hosts {
    /// Whether a host, in any case and without a port, is allowed by name.
    pub fn lists(&self, host: &str) -> bool {
        self.any || self.listed.iter().any(|listed| listed.eq_ignore_ascii_case(host))
    }

    fn parse(words: &[String]) -> Result<Hosts, Wrong> {
        let mut hosts = Hosts { any: false, auto: false, listed: Vec::new() };
        for word in words {
            match word.as_str() {
                "*" => hosts.any = true,
                "auto" => hosts.auto = true,
                _ => hosts.listed.push(listed(word)?),
            }
        }
        if words.is_empty() {
            return Err(Wrong::new("is empty", "write [\"auto\"] for the default"));
        }
        Ok(hosts)
    }

    fn words(&self) -> Vec<String> {
        let any = self.any.then(|| "*".to_owned());
        let auto = self.auto.then(|| "auto".to_owned());
        any.into_iter().chain(auto).chain(self.listed.iter().cloned()).collect()
    }
}

/// A host is what stands in an origin behind its scheme.
fn listed(word: &str) -> Result<String, Wrong> {
    match format!("host://{word}").parse() {
        Ok(Origin::Host { host, port: None, .. }) => Ok(host),
        Ok(Origin::Host { host, .. }) => {
            let wrong = format!("has {}, a host with a port", quote(word));
            Err(Wrong::new(
                wrong,
                format!("write {}: every port of the host is allowed", quote(&host)),
            ))
        }
        _ => {
            let bare = word.split("://").last().unwrap_or(word);
            let bare = bare.split(['/', ':']).next().unwrap_or(bare);
            let right = match format!("host://{bare}").parse::<Origin>() {
                Ok(_) => format!("did you mean {}?", quote(bare)),
                Err(_) => "write \"example.com\", \"auto\" or \"*\"".to_owned(),
            };
            Err(Wrong::new(format!("has {}, which is no host", quote(word)), right))
        }
    }
}

impl TryFrom<Vec<String>> for Hosts {
    type Error = String;

    fn try_from(words: Vec<String>) -> Result<Hosts, String> {
        Hosts::parse(&words).map_err(|fault| fault.wrong)
    }
}

impl From<Hosts> for Vec<String> {
    fn from(hosts: Hosts) -> Vec<String> {
        hosts.words()
    }
}

impl Setting for Hosts {
    const UNIT: &'static str = "list of hosts";

    fn read(raw: &Raw, _: &Path) -> Result<Hosts, Wrong> {
        Hosts::parse(&words(raw)?)
    }

    fn show(&self) -> String {
        self.words().show()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_or_a_port_is_answered_with_the_right_value() {
        let wrong = |word: &str| Hosts::parse(&[word.to_owned()]).unwrap_err().right;
        assert_eq!(wrong("https://app.example/"), "did you mean \"app.example\"?");
        assert_eq!(wrong("app.example/x"), "did you mean \"app.example\"?");
        assert_eq!(
            wrong("App.Example:80"),
            "write \"app.example\": every port of the host is allowed"
        );
        assert!(Hosts::parse(&[]).is_err());
        assert!(Hosts::parse(&["App.Example".to_owned()]).unwrap().lists("app.example"));
    }
}
