//! The frame of a chunked body (RFC 9112 section 7.1), checked byte by byte as it comes, and
//! written anew for hyper, without extensions and trailers: what hyper reads is never malformed.

use crate::worker::head::{Refusal, check_field_line};

/// The longest line of a size with its extensions, in bytes.
const LINE_BYTES_MAX: usize = 1024;
/// The most bytes of trailers.
const TRAILER_BYTES_MAX: usize = 8192;
/// Digits of the greatest size that fits into 64 bits.
const DIGITS_MAX: usize = 16;

/// How far a chunked body is.
pub(super) struct Chunks {
    at: At,
    /// Bytes of data that were announced.
    announced: u64,
    trailer_bytes: usize,
}

#[derive(Clone, Copy)]
enum At {
    /// The line with the size of the next chunk.
    Size,
    /// The line end behind the data of a chunk.
    DataEnd,
    /// Lines behind the last chunk.
    Trailers,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// More bytes are needed.
    More,
    /// So many bytes are done with.
    Skip(usize),
    /// Behind so many bytes comes the data of a chunk, of so many.
    Data(usize, u64),
    /// The body ends behind so many bytes.
    End(usize),
}

impl Chunks {
    pub(super) fn new() -> Chunks {
        Chunks { at: At::Size, announced: 0, trailer_bytes: 0 }
    }

    /// Looks at bytes that are no data. After [`Next::Data`] they are those behind the data.
    ///
    /// # Errors
    ///
    /// 400 for what no chunk may look like, and 413 once more is announced than `most`.
    pub(super) fn next(&mut self, received: &[u8], most: u64) -> Result<Next, Refusal> {
        match self.at {
            At::Size => self.size(received, most),
            At::DataEnd => self.data_end(received),
            At::Trailers => self.trailer(received),
        }
    }

    fn size(&mut self, received: &[u8], most: u64) -> Result<Next, Refusal> {
        let digits = received.iter().position(|byte| !byte.is_ascii_hexdigit());
        let digits = digits.unwrap_or(received.len());
        let size = size_of(&received[..digits])?;
        if size > most - self.announced {
            return Err(Refusal::too_large());
        }
        if digits == 0 && !received.is_empty() {
            return Err(bad("a chunk without a size"));
        }
        let Some(after) = size_line_end(&received[digits..])? else {
            // The size may have more digits.
            return Ok(Next::More);
        };
        let used = digits + after;
        if size == 0 {
            self.at = At::Trailers;
            return Ok(Next::Skip(used));
        }
        self.announced += size;
        self.at = At::DataEnd;
        Ok(Next::Data(used, size))
    }

    fn data_end(&mut self, received: &[u8]) -> Result<Next, Refusal> {
        match received {
            [] | [b'\r'] => Ok(Next::More),
            [b'\r', b'\n', ..] => {
                self.at = At::Size;
                Ok(Next::Skip(2))
            }
            _ => Err(bad("a chunk is not as long as it says")),
        }
    }

    fn trailer(&mut self, received: &[u8]) -> Result<Next, Refusal> {
        let Some(end) = received.iter().position(|&byte| byte == b'\n') else {
            if self.trailer_bytes + received.len() > TRAILER_BYTES_MAX {
                return Err(Refusal::new(431, "the trailers are too long"));
            }
            return check_trailer(received).map(|()| Next::More);
        };
        self.trailer_bytes += end;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(Refusal::new(431, "the trailers are too long"));
        }
        let Some(line) = received[..end].strip_suffix(b"\r") else {
            return Err(bad("a line of the body ends in LF without CR"));
        };
        check_trailer(line)?;
        if line.is_empty() {
            return Ok(Next::End(end + 1));
        }
        check_field_line(line)?;
        Ok(Next::Skip(end + 1))
    }
}

fn bad(why: &'static str) -> Refusal {
    Refusal::bad(why)
}

/// What a trailer may not hold, as far as it came.
fn check_trailer(line: &[u8]) -> Result<(), Refusal> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(bad("a folded line"));
    }
    if line.iter().any(|&byte| byte != b'\t' && byte.is_ascii_control()) {
        return Err(bad("a control character in the trailers"));
    }
    Ok(())
}

fn size_of(digits: &[u8]) -> Result<u64, Refusal> {
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    if digits.len() > LINE_BYTES_MAX {
        return Err(bad("the size of a chunk has too many digits"));
    }
    let digits = &digits[zeros..];
    if digits.len() > DIGITS_MAX {
        return Err(Refusal::too_large());
    }
    let value = |digit: &u8| char::from(*digit).to_digit(16).map_or(0, u64::from);
    Ok(digits.iter().fold(0, |size, digit| size << 4 | value(digit)))
}

/// Where the line of a size ends that has no more digits: extensions are read over (RFC 9112
/// section 7.1.1). `None` where the end has not come.
fn size_line_end(rest: &[u8]) -> Result<Option<usize>, Refusal> {
    let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    match (blanks, rest.get(blanks)) {
        (_, None) | (0, Some(b'\r')) | (_, Some(b';')) => {}
        _ => return Err(bad("the size of a chunk is not hexadecimal")),
    }
    let allowed = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
    let end = rest.iter().position(|byte| !allowed(byte)).unwrap_or(rest.len());
    if end > LINE_BYTES_MAX {
        return Err(bad("the extensions of a chunk are too long"));
    }
    match &rest[end..] {
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => Ok(Some(end + 2)),
        _ => Err(bad("a control character in the line of a chunk")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = 100;

    /// The data, or the status; `None` where the body has not ended.
    fn read(bytes: &[u8]) -> Result<Option<Vec<u8>>, u16> {
        let (mut chunks, mut at, mut data) = (Chunks::new(), 0, Vec::new());
        loop {
            match chunks.next(&bytes[at..], MOST).map_err(|refusal| refusal.status)? {
                Next::More => return Ok(None),
                Next::Skip(used) => at += used,
                Next::Data(used, size) => {
                    let start = at + used;
                    let end = bytes.len().min(start + size as usize);
                    data.extend_from_slice(&bytes[start..end]);
                    at = end;
                }
                Next::End(used) => {
                    assert_eq!(at + used, bytes.len());
                    return Ok(Some(data));
                }
            }
        }
    }

    #[test]
    fn data_comes_out_without_its_frame() {
        for (bytes, data) in [
            ("0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("000005\r\nhello\r\n00\r\n\r\n", "hello"),
            ("5;a=b;c=\"d e\" ; f\r\nhello\r\n0;x\r\n\r\n", "hello"),
            ("A \t;a\r\n0123456789\r\n0\r\nX: y\r\nZ:\r\n\r\n", "0123456789"),
            ("2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n", "abcde"),
        ] {
            assert_eq!(read(bytes.as_bytes()), Ok(Some(data.into())), "{bytes:?}");
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes.as_bytes()[..cut]), Ok(None), "{:?}", &bytes[..cut]);
            }
        }
    }

    #[test]
    fn what_is_malformed_is_refused_with_its_first_wrong_byte() {
        for (bytes, status) in [
            ("z", 400),
            ("\n", 400),
            ("\r", 400),
            ("5\n", 400),
            ("5\r\r", 400),
            ("5 \r", 400),
            ("5 5", 400),
            ("0x5", 400),
            ("-5", 400),
            ("+5", 400),
            (" 5", 400),
            ("5,", 400),
            ("5;a\n", 400),
            ("5;\0", 400),
            ("5;a\r5", 400),
            ("5\r\nhello0", 400),
            ("5\r\nhello\n", 400),
            ("5\r\nhello\rx", 400),
            ("0\r\n a", 400),
            ("0\r\na: b\n", 400),
            ("0\r\na b: c\r\n", 400),
            ("0\r\nab\r\n", 400),
            ("0\r\na\0", 400),
            ("65", 413),
            ("64\r\n0", 0),
            ("fffffffffffffffff", 413),
            ("10000000000000000", 413),
        ] {
            let said = read(bytes.as_bytes()).map_or_else(|status| status, |_| 0);
            assert_eq!(said, status, "{bytes:?}");
        }
        let twice = [b"60\r\n".as_slice(), &[b'x'; 96], b"\r\n5"].concat();
        assert_eq!(read(&twice), Err(413));
        assert_eq!(read(&[b"0;".as_slice(), &[b'x'; 2000]].concat()), Err(400));
        assert_eq!(read(&[b"0\r\n".as_slice(), &[b'x'; 9000]].concat()), Err(431));
    }
}
