//! Finding the end of the head while its bytes arrive.

use super::Refusal;
use crate::config::Config;

/// How much of a head is read before the client is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The whole head in bytes, its empty last line included; more is a 431.
    pub head_bytes_max: usize,
    /// One line in bytes, without its CRLF; more is a 414 in the first line, else a 431.
    pub line_bytes_max: usize,
    /// Field lines; more is a 431.
    pub fields_max: usize,
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Limits {
        Limits {
            head_bytes_max: config.head_bytes_max as usize,
            line_bytes_max: config.head_line_max as usize,
            fields_max: config.head_fields_max,
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { head_bytes_max: 16 * 1024, line_bytes_max: 8 * 1024, fields_max: 128 }
    }
}

/// A whole head of lines that end in CRLF, within its limits and free of control characters.
/// Only a [`Reader`] makes one.
#[derive(Debug, Clone, Copy)]
pub struct RawHead<'a> {
    bytes: &'a [u8],
    /// Bytes of empty lines before it.
    skipped: usize,
    fields: usize,
}

impl<'a> RawHead<'a> {
    /// The head's bytes, its empty last line included.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Its length with the empty lines before it; what follows in the buffer is the body, or the
    /// client's first frames.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.skipped + self.bytes.len()
    }

    /// How many field lines it has.
    pub fn field_count(&self) -> usize {
        self.fields
    }

    /// The lines without their CRLF, the empty last one left out.
    pub fn lines(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.bytes;
        let lines = std::iter::from_fn(move || {
            let line = &rest[..memchr::memchr(b'\n', rest)?];
            rest = &rest[line.len() + 1..];
            Some(line.strip_suffix(b"\r").unwrap_or(line))
        });
        lines.filter(|line| !line.is_empty())
    }
}

/// Remembers how far a head was scanned, so that a head that trickles in byte by byte costs no
/// more than one that comes at once. The first offending byte decides, so the verdict does not
/// depend on how the bytes were cut.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reader {
    /// Where the head begins, behind empty lines (RFC 9112 section 2.2).
    start: usize,
    scanned: usize,
    line_start: usize,
    lines: usize,
}

impl Reader {
    /// A reader at the first byte of a head.
    pub fn new() -> Reader {
        Reader::default()
    }

    /// Whether a request was begun in `received`: empty lines are none.
    pub fn has_begun(&self, received: &[u8]) -> bool {
        !matches!(received.get(self.start..), None | Some([] | [b'\r']))
    }

    /// Scans what is new in `received`, which holds all bytes since the head began. `None`
    /// means that more is needed.
    ///
    /// # Errors
    ///
    /// 400 for a byte no head may hold (bare CR or LF, NUL and other control characters, an
    /// empty or folded line), 414 and 431 for a head beyond its limits.
    pub fn advance<'a>(
        &mut self,
        received: &'a [u8],
        limits: &Limits,
    ) -> Result<Option<RawHead<'a>>, Refusal> {
        loop {
            self.scanned += self.plain(received, limits);
            let Some(&byte) = received.get(self.scanned) else { return Ok(None) };
            let before = &received[self.line_start..self.scanned];
            self.check_byte(byte, before, limits)?;
            self.scanned += 1;
            if byte == b'\n' {
                match (before.len(), self.lines) {
                    (1, 0) => self.start = self.scanned,
                    (1, lines) => {
                        let bytes = &received[self.start..self.scanned];
                        let head = RawHead { bytes, skipped: self.start, fields: lines - 1 };
                        return Ok(Some(head));
                    }
                    _ => self.lines += 1,
                }
                self.line_start = self.scanned;
            }
        }
    }

    /// How many bytes come next of which nothing is to be said: printable ones in the midst of a
    /// line, within the limits. Most of a head is such.
    fn plain(&self, received: &[u8], limits: &Limits) -> usize {
        let before = &received[self.line_start..self.scanned];
        if matches!(before.last(), None | Some(b'\r')) {
            return 0;
        }
        let end = (self.line_start + limits.line_bytes_max).min(limits.head_bytes_max);
        let rest = &received[self.scanned..received.len().min(end).max(self.scanned)];
        // Sixteen at once are one look.
        let (sixteens, _) = rest.as_chunks::<16>();
        let is_plain =
            |bytes: &[u8; 16]| !bytes.iter().fold(false, |any, b| any | b.is_ascii_control());
        let plain = 16 * sixteens.iter().take_while(|bytes| is_plain(bytes)).count();
        let rest = &rest[plain..];
        plain + rest.iter().position(u8::is_ascii_control).unwrap_or(rest.len())
    }

    /// Judges one byte by what precedes it in its line.
    fn check_byte(&self, byte: u8, before: &[u8], limits: &Limits) -> Result<(), Refusal> {
        let after_cr = before.last() == Some(&b'\r');
        match byte {
            b'\n' if !after_cr => return Err(Refusal::bad("a line ends in LF without CR")),
            b'\n' => {}
            _ if after_cr => return Err(Refusal::bad("a CR without LF")),
            b' ' | b'\t' if before.is_empty() && self.lines == 0 => {
                return Err(Refusal::bad("white space before the request line"));
            }
            b' ' | b'\t' if before.is_empty() => return Err(Refusal::bad("a folded line")),
            b'\t' | b'\r' => {}
            0 => return Err(Refusal::bad("a NUL in the head")),
            0x16 if self.scanned == self.start => {
                return Err(Refusal::bad("a TLS handshake on a port without TLS"));
            }
            byte if byte.is_ascii_control() => {
                return Err(Refusal::bad("a control character in the head"));
            }
            _ => {}
        }
        self.check_limits(byte, before.len(), limits)
    }

    fn check_limits(&self, byte: u8, column: usize, limits: &Limits) -> Result<(), Refusal> {
        let too_long = column >= limits.line_bytes_max && !matches!(byte, b'\r' | b'\n');
        if too_long && self.lines == 0 {
            return Err(Refusal::new(414, "the request line is too long"));
        }
        if too_long {
            return Err(Refusal::new(431, "a header line is too long"));
        }
        if self.scanned >= limits.head_bytes_max {
            return Err(Refusal::new(431, "the head is too long"));
        }
        // The line being begun is a field unless it is the first, or only a CR.
        if column == 0 && self.lines > limits.fields_max && byte != b'\r' {
            return Err(Refusal::new(431, "too many header fields"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], limits: &Limits) -> Result<Option<usize>, u16> {
        let mut reader = Reader::new();
        let verdict = reader.advance(bytes, limits);
        verdict.map(|head| head.map(|head| head.len())).map_err(|refusal| refusal.status)
    }

    #[test]
    fn the_head_ends_at_its_empty_line_and_what_follows_is_left_alone() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\x82\x00\n";
        assert_eq!(read(bytes, &Limits::default()), Ok(Some(bytes.len() - 3)));
        assert_eq!(read(&bytes[..20], &Limits::default()), Ok(None));
        assert_eq!(read(b"", &Limits::default()), Ok(None));
    }

    #[test]
    fn the_limits_of_a_default_configuration_are_the_default_limits() {
        assert_eq!(Limits::from(&Config::default()), Limits::default());
    }

    #[test]
    fn a_head_that_comes_at_once_is_judged_as_one_that_trickles() {
        let limits = Limits { head_bytes_max: 60, line_bytes_max: 20, fields_max: 2 };
        let whole = b"GET / HTTP/1.1\r\nHost: a.example\r\nX: \xff\t b\r\n\r\n".as_slice();
        for at in 0..whole.len() {
            for byte in [b'\r', b'\n', b'\t', b' ', b'x', 0, 0x16, 0x7f, 0x80] {
                let mut head = whole.to_vec();
                head[at] = byte;
                head.insert(at, b'y');
                let mut trickle = Reader::new();
                let verdicts = (0..=head.len()).map(|n| trickle.advance(&head[..n], &limits));
                let trickled = verdicts
                    .map(|verdict| verdict.map(|head| head.map(|head| head.len())))
                    .find(|verdict| !matches!(verdict, Ok(None)))
                    .unwrap_or(Ok(None));
                assert_eq!(read(&head, &limits), trickled.map_err(|refusal| refusal.status));
            }
        }
    }

    #[test]
    fn every_limit_is_exact() {
        let limits = Limits { head_bytes_max: 40, line_bytes_max: 20, fields_max: 2 };
        assert_eq!(read(&[b'a'; 20], &limits), Ok(None));
        assert_eq!(read(&[b'a'; 21], &limits), Err(414));
        assert_eq!(read(b"aaaaaaaaaaaaaaaaaaaa\r\n\r\n", &limits), Ok(Some(24)));
        assert_eq!(read(b"a\r\naaaaaaaaaaaaaaaaaaaa", &limits), Ok(None));
        assert_eq!(read(b"a\r\naaaaaaaaaaaaaaaaaaaaa", &limits), Err(431));
        assert_eq!(read(b"a\r\nb\r\nc\r\n\r\n", &limits), Ok(Some(11)));
        assert_eq!(read(b"a\r\nb\r\nc\r\nd", &limits), Err(431));
        assert_eq!(
            read(b"aaaaaaaaaaaaaa\r\naaaaaaaa\r\naaaaaaaaaa\r\n\r\n", &limits),
            Ok(Some(40))
        );
        assert_eq!(read(b"aaaaaaaaaaaaaa\r\naaaaaaaa\r\naaaaaaaaaaa\r\n\r\n", &limits), Err(431));
    }

    #[test]
    fn a_twenty_megabyte_head_is_refused_at_its_cap() {
        let limits = Limits::default();
        let mut head = b"GET / HTTP/1.1\r\n".to_vec();
        while head.len() < 20 * 1024 * 1024 {
            head.extend_from_slice(b"X-A: b\r\n");
        }
        let mut reader = Reader::new();
        let stopped = (1..head.len()).find(|&n| reader.advance(&head[..n], &limits).is_err());
        assert!(stopped.unwrap() <= limits.head_bytes_max);
    }
}
