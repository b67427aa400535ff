//! Where the engine of a cluster is: an address, a path, or a list of Sentinels. No secret is part
//! of it: what is shown, logged and passed on may be read by anybody.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::errors::Wrong;
use super::text::{digits, quote};
use super::value::{Raw, Setting};

/// The port of a server that is written without one.
const PORT: u16 = 6379;
/// The port of a Sentinel that is written without one.
const SENTINEL_PORT: u16 = 26379;
/// Sentinels of one list.
const SENTINELS_MAX: usize = 16;
/// The highest database.
const DATABASE_MAX: u32 = 65_535;

/// The fault. The text is not shown: somebody may have written the password into it.
const NO_ADDRESS: &str = "is no address of an engine";
const RIGHT: &str = "write \"redis://host:6379\", \"redis://user@host:6379/0\", \
                     \"unix:/path?user=U&db=0\" or \
                     \"redis+sentinel://host:26379,host:26379/service\"";

/// An engine, as `cluster.engine` names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EngineAddress {
    /// Where it listens.
    pub place: EnginePlace,
    /// As whom to ask; `None`: the engine's default user.
    pub user: Option<String>,
    /// Which database holds the keys.
    pub database: u32,
}

/// Where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnginePlace {
    /// At a TCP address.
    Tcp(String, u16),
    /// At a socket of this machine.
    Unix(PathBuf),
    /// Wherever these Sentinels say that the master of a service is.
    Sentinel {
        /// The Sentinels, any of which may answer.
        sentinels: Vec<(String, u16)>,
        /// The name of the service there.
        service: String,
    },
}

impl EngineAddress {
    /// Whether it names the server itself.
    pub fn is_direct(&self) -> bool {
        !matches!(self.place, EnginePlace::Sentinel { .. })
    }

    fn parse(text: &str) -> Result<EngineAddress, Wrong> {
        if let Some(rest) = text.strip_prefix("unix:") {
            return unix(rest);
        }
        let (rest, sentinel) = match text.split_once("://") {
            Some(("redis", rest)) => (rest, false),
            Some(("redis+sentinel", rest)) => (rest, true),
            Some(("rediss", _)) => {
                return Err(Wrong::new(
                    "asks for TLS, which wsd does not speak to an engine",
                    "use a private network or a tunnel (stunnel), and redis://",
                ));
            }
            _ => return Err(Wrong::new(NO_ADDRESS, RIGHT)),
        };
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(name(user)?), rest),
            None => (None, rest),
        };
        let mut parts = rest.split('/');
        let hosts = parts.next().unwrap_or_default();
        let service = if sentinel { parts.next() } else { None };
        let database = database(parts.next().unwrap_or_default())?;
        if parts.next().is_some() {
            return Err(Wrong::new(NO_ADDRESS, RIGHT));
        }
        let place = if sentinel {
            let sentinels: Vec<_> = hosts
                .split(',')
                .map(|host| address(host, SENTINEL_PORT))
                .collect::<Result<_, _>>()?;
            let service = service.filter(|service| !service.is_empty());
            let missing = || Wrong::new("names no service of the Sentinels", RIGHT);
            let service = service.ok_or_else(missing)?.to_owned();
            if sentinels.len() > SENTINELS_MAX {
                let wrong = format!("has {} Sentinels", sentinels.len());
                return Err(Wrong::new(wrong, format!("write at most {SENTINELS_MAX}")));
            }
            EnginePlace::Sentinel { sentinels, service }
        } else {
            let (host, port) = address(hosts, PORT)?;
            EnginePlace::Tcp(host, port)
        };
        Ok(EngineAddress { place, user, database })
    }
}

fn unix(rest: &str) -> Result<EngineAddress, Wrong> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = path.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(path);
    if !path.starts_with('/') || path.contains('\0') {
        return Err(Wrong::new("has no absolute path", "write \"unix:/run/redis/redis.sock\""));
    }
    let place = EnginePlace::Unix(PathBuf::from(path));
    let mut engine = EngineAddress { place, user: None, database: 0 };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("user", user)) => engine.user = Some(name(user)?),
            Some(("db", db)) => engine.database = database(db)?,
            _ => return Err(Wrong::new("says more than user and db behind the path", RIGHT)),
        }
    }
    Ok(engine)
}

fn name(user: &str) -> Result<String, Wrong> {
    if user.contains(':') {
        return Err(Wrong::new(
            "holds a password, which would stand in logs and process lists",
            "write the password into a file and its path as cluster.password_file",
        ));
    }
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"/?#@,".contains(&byte);
    match !user.is_empty() && user.bytes().all(plain) {
        true => Ok(user.to_owned()),
        false => Err(Wrong::new("names a user that is no plain word", RIGHT)),
    }
}

fn database(text: &str) -> Result<u32, Wrong> {
    let number = if text.is_empty() { Some(0) } else { digits(text) };
    number.filter(|number| *number <= DATABASE_MAX).ok_or_else(|| {
        Wrong::new("names a database that is no number", "write its number, such as /0")
    })
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn address(text: &str, port: u16) -> Result<(String, u16), Wrong> {
    let wrong = || Wrong::new(NO_ADDRESS, RIGHT);
    let (host, rest) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or_else(wrong)?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    if host.is_empty() || !host.bytes().all(plain) {
        return Err(wrong());
    }
    let port = match rest.strip_prefix(':') {
        Some(number) => digits(number).filter(|number| *number > 0).ok_or_else(wrong)?,
        None if rest.is_empty() => port,
        None => return Err(wrong()),
    };
    Ok((host.to_owned(), port))
}

struct Address<'a>(&'a str, u16);

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.contains(':') {
            true => write!(f, "[{}]:{}", self.0, self.1),
            false => write!(f, "{}:{}", self.0, self.1),
        }
    }
}

impl fmt::Display for EngineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.iter().map(|user| format!("{user}@")).collect::<String>();
        match &self.place {
            EnginePlace::Tcp(host, port) => {
                write!(f, "redis://{user}{}/{}", Address(host, *port), self.database)
            }
            EnginePlace::Unix(path) => {
                let user = self.user.iter().map(|user| format!("user={user}&"));
                let user = user.collect::<String>();
                write!(f, "unix:{}?{user}db={}", path.display(), self.database)
            }
            EnginePlace::Sentinel { sentinels, service } => {
                let hosts = sentinels.iter().map(|(host, port)| Address(host, *port).to_string());
                let hosts = hosts.collect::<Vec<_>>().join(",");
                write!(f, "redis+sentinel://{user}{hosts}/{service}/{}", self.database)
            }
        }
    }
}

impl TryFrom<String> for EngineAddress {
    type Error = String;

    fn try_from(text: String) -> Result<EngineAddress, String> {
        EngineAddress::parse(&text).map_err(|wrong| wrong.wrong)
    }
}

impl From<EngineAddress> for String {
    fn from(engine: EngineAddress) -> String {
        engine.to_string()
    }
}

impl Setting for Option<EngineAddress> {
    const UNIT: &'static str = "address of an engine";

    fn read(raw: &Raw, _: &Path) -> Result<Option<EngineAddress>, Wrong> {
        match raw.as_text() {
            None => Err(raw.wrong_unseen(RIGHT)),
            Some("") => Ok(None),
            Some(text) => EngineAddress::parse(text).map(Some),
        }
    }

    fn show(&self) -> String {
        quote(&self.as_ref().map(EngineAddress::to_string).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_the_same_when_it_is_shown_and_read_again() {
        for (text, shown) in [
            ("redis://h", "redis://h:6379/0"),
            ("redis://u@10.0.0.1:7000/3", "redis://u@10.0.0.1:7000/3"),
            ("redis://[::1]:7000", "redis://[::1]:7000/0"),
            ("unix:/run/r.sock", "unix:/run/r.sock?db=0"),
            ("unix:///run/r.sock?user=u&db=2", "unix:/run/r.sock?user=u&db=2"),
            ("redis+sentinel://a,b:27000/main", "redis+sentinel://a:26379,b:27000/main/0"),
        ] {
            let engine = EngineAddress::parse(text).unwrap();
            assert_eq!(engine.to_string(), shown);
            assert_eq!(EngineAddress::parse(shown).unwrap(), engine);
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_cure_and_without_the_password() {
        for (text, word) in [
            ("redis://u:hush@h", "password_file"),
            ("rediss://h", "stunnel"),
            ("http://h", "redis://"),
            ("redis//u:hush@h", "redis://"),
            ("redis://:hush", "redis://"),
            ("redis://h/hush", "/0"),
            ("redis://h/0/hush", "redis://"),
            ("redis://hu sh@h", "redis://"),
            ("redis://", "redis://"),
            ("redis://h:0", "redis://"),
            ("redis://h:+1", "redis://"),
            ("redis://h/x", "/0"),
            ("redis://h/+1", "/0"),
            ("redis+sentinel://a", "service"),
            ("unix:run", "unix:/run"),
            ("unix:/r?password=hush", "user and db"),
        ] {
            let wrong = EngineAddress::parse(text).unwrap_err();
            let told = format!("{}; {}", wrong.wrong, wrong.right);
            assert!(told.contains(word) && !told.contains("hush"), "{text}: {told}");
        }
    }
}
