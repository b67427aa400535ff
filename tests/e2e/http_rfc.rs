//! What the RFCs have a server answer, case by case: `http-rfc.txt` has them, with their sections.
//! Each is tried directly and through nginx.

use futures_util::StreamExt as _;

use crate::harness::*;
use crate::proxy::Nginx;

/// One line of the table.
struct Case {
    section: &'static str,
    /// The status of each answer.
    directly: Vec<u16>,
    /// The same through nginx; `None` where the case cannot be tried so.
    by_nginx: Option<Vec<u16>>,
    /// What is sent; before each part but the first something was answered.
    parts: Vec<Vec<u8>>,
    /// Whether the client says then that nothing more comes.
    ends: bool,
}

impl Case {
    fn is_refused(&self) -> bool {
        self.directly.last().is_some_and(|status| *status >= 400)
    }

    /// The status of each answer at `address`.
    async fn answers(&self, address: &str) -> Vec<u16> {
        let mut raw = Raw::connect(address).await;
        let mut said = Vec::new();
        for (index, part) in self.parts.iter().enumerate() {
            if index > 0 {
                said.extend(raw.head().await.into_bytes());
            }
            raw.send(part).await;
        }
        if self.ends {
            raw.finish().await;
        }
        said.extend(raw.rest().await);
        let is_head = self.parts[0].starts_with(b"HEAD ");
        statuses(&said, is_head).unwrap_or_else(|what| panic!("{what}: {}", self.shown()))
    }

    fn shown(&self) -> String {
        let sent = self.parts.concat();
        format!("{} {}", self.section, sent[..sent.len().min(200)].escape_ascii())
    }
}

fn cases() -> Vec<Case> {
    let lines = include_str!("http-rfc.txt").lines();
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(case).collect()
}

fn case(line: &'static str) -> Case {
    let mut columns = line.splitn(4, '|');
    let mut column = || columns.next().unwrap_or_else(|| panic!("{line}"));
    let numbers = |text: &str| -> Vec<u16> {
        text.split_whitespace().map(|status| status.parse().expect("a status")).collect()
    };
    let (section, directly, by_nginx) = (column().trim(), numbers(column()), column().trim());
    let by_nginx = match by_nginx {
        "" => None,
        "=" => Some(directly.clone()),
        others => Some(numbers(others)),
    };
    let text = column().strip_prefix(' ').expect("a blank before the bytes");
    let ends = text.ends_with("{EOF}");
    let text = text.trim_end_matches("{EOF}");
    let parts = text.split("{...}").map(bytes).collect();
    Case { section, directly, by_nginx, parts, ends }
}

/// What a column of bytes stands for.
fn bytes(text: &str) -> Vec<u8> {
    let text = text
        .replace("{H}", r"Host: server\r\n")
        .replace("{C}", r"Connection: close\r\n\r\n")
        .replace("{E}", r"\r\n");
    let mut bytes = Vec::new();
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let (used, piece) = match first {
            '\\' => escaped(rest),
            '{' => repeated(rest),
            other => (other.len_utf8(), rest.as_bytes()[..other.len_utf8()].to_vec()),
        };
        bytes.extend(piece);
        rest = &rest[used..];
    }
    bytes
}

fn escaped(text: &str) -> (usize, Vec<u8>) {
    let byte = match text.as_bytes()[1] {
        b'r' => b'\r',
        b'n' => b'\n',
        b't' => b'\t',
        b'0' => 0,
        b'x' => return (4, vec![u8::from_str_radix(&text[2..4], 16).expect("hex")]),
        other => other,
    };
    (2, vec![byte])
}

/// `{what*times}`, or a brace alone.
fn repeated(text: &str) -> (usize, Vec<u8>) {
    let inside = text.find('}').map(|end| (&text[1..end], end + 1));
    let parsed = inside.and_then(|(inside, used)| {
        let (what, times) = inside.rsplit_once('*')?;
        Some((used, bytes(what).repeat(times.parse().ok()?)))
    });
    parsed.unwrap_or_else(|| (1, b"{".to_vec()))
}

/// Takes answers apart; each has to be whole, and where a body stands that must not, this fails.
fn statuses(mut said: &[u8], is_head: bool) -> Result<Vec<u16>, String> {
    let mut statuses = Vec::new();
    while !said.is_empty() {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut answer = httparse::Response::new(&mut fields);
        let parsed = answer.parse(said);
        let (Ok(httparse::Status::Complete(used)), Some(status)) = (parsed, answer.code) else {
            return Err(format!("no answer: {}", said.escape_ascii()));
        };
        let named =
            |name: &str| answer.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        if status >= 200 && named("date").is_none() {
            return Err(format!("{status} without a Date"));
        }
        said = &said[used..];
        statuses.push(status);
        if is_head || status < 200 || matches!(status, 204 | 304) {
            continue;
        }
        if named("transfer-encoding").is_some() {
            let end = said.windows(5).position(|window| window == b"0\r\n\r\n");
            said = &said[end.ok_or("a body without its end")? + 5..];
        } else if let Some(length) = named("content-length") {
            let length = String::from_utf8_lossy(length.value).parse::<usize>();
            let length = length.map_err(|error| error.to_string())?;
            said = said.get(length..).ok_or("a body cut short")?;
        } else {
            said = &[];
        }
    }
    Ok(statuses)
}

#[tokio::test]
async fn every_case_is_answered_as_the_rfcs_say() {
    let server = Setup::testbed().start().await;
    let cases = cases();
    assert!(cases.len() >= 154, "{}", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let answers = case.answers(&server.address).await;
        if answers != case.directly {
            wrong.push(format!("{answers:?}, not {:?}: {}", case.directly, case.shown()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn every_case_is_answered_so_through_nginx_but_for_what_it_does_itself() {
    let server = Setup::testbed().start().await;
    let nginx = Nginx::start(server.path(), &server.address, "").await;
    let mut wrong = Vec::new();
    for case in &cases() {
        let Some(expected) = &case.by_nginx else { continue };
        let answers = case.answers(&nginx.address).await;
        if answers != *expected {
            wrong.push(format!("{answers:?}, not {expected:?}: {}", case.shown()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// nginx takes a server whose answer it cannot read for a dead one: with two of them and its
/// defaults, two such requests would end all service for ten seconds. `scripts/refused` asks
/// 10,000 times.
#[tokio::test]
async fn refused_requests_cost_honest_ones_nothing_behind_nginx() {
    let server = Setup::testbed().set("listen", r#"["127.0.0.1:0", "127.0.0.2:0"]"#).start().await;
    let listen = server.status().await["listen"].as_array().expect("addresses").clone();
    let listen: Vec<String> =
        listen.iter().map(|address| address.as_str().expect("an address").to_owned()).collect();
    assert_eq!(listen.len(), 2);
    let nginx = Nginx::balancing(server.path(), &listen).await;
    let cases = cases();
    let refused: Vec<&Case> =
        cases.iter().filter(|case| case.is_refused() && case.by_nginx.is_some()).collect();
    let asked = std::env::var("E2E_REFUSED").ok().map(|count| count.parse().expect("a number"));
    let count = asked.unwrap_or(refused.len());
    let honest = bytes(r"GET /body HTTP/1.1\r\n{H}{C}");
    // Some are answered only when the server or nginx has waited for more of them.
    let asked = futures_util::stream::iter(refused.iter().cycle().take(count));
    asked
        .for_each_concurrent(32, async |case| {
            let answers = case.answers(&nginx.address).await;
            assert!(!answers.contains(&502), "{answers:?}: {}", case.shown());
            let mut raw = Raw::connect(&nginx.address).await;
            raw.send(&honest).await;
            let answer = statuses(&raw.rest().await, false);
            assert_eq!(answer.as_deref(), Ok([200].as_slice()), "after {}", case.shown());
        })
        .await;
    println!("{count} refused requests, {count} honest ones, none of these failed");
}
