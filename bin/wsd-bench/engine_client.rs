//! A Redis at a Unix socket, as a client without a library sees it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use crate::Failure;

/// One connection.
pub struct EngineClient {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl EngineClient {
    pub fn connect(socket: &str) -> Result<EngineClient, Failure> {
        let writer = UnixStream::connect(socket)?;
        let reader = BufReader::with_capacity(1 << 20, writer.try_clone()?);
        Ok(EngineClient { reader, writer })
    }

    /// Sends what was made by [`command`].
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.writer.write_all(bytes)?)
    }

    /// Skips so many answers that are lines.
    pub fn skip_lines(&mut self, count: usize) -> Result<(), Failure> {
        let mut line = Vec::new();
        for _ in 0..count {
            line.clear();
            self.reader.read_until(b'\n', &mut line)?;
        }
        Ok(())
    }

    /// Skips an answer that is a list of so many parts.
    pub fn skip_list(&mut self, parts: usize) -> Result<(), Failure> {
        self.skip_lines(1)?;
        for _ in 0..parts {
            let mut head = String::new();
            self.reader.read_line(&mut head)?;
            if let Some(len) = head.strip_prefix('$') {
                let mut part = vec![0; len.trim().parse::<usize>()? + 2];
                self.reader.read_exact(&mut part)?;
            }
        }
        Ok(())
    }
}

/// A command as Redis reads it.
pub fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend_from_slice(word);
        bytes.extend(b"\r\n");
    }
    bytes
}
