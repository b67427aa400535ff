//! A blocking client of the control protocol, for the command line.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::{Answer, Request, RunningServer, line};

/// Bytes of an answer line: a status with 1,280 workers has its place in it.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A connection to the manager.
pub struct Control {
    stream: BufReader<UnixStream>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum ControlError {
    /// Nobody listens there: the server does not run.
    NotRunning(String),
    /// No answer came in time.
    TimedOut(String),
    /// The connection ended before the answer.
    Ended,
    /// Anything else.
    Failed(String),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlError::NotRunning(what)
            | ControlError::TimedOut(what)
            | ControlError::Failed(what) => f.write_str(what),
            ControlError::Ended => f.write_str("the manager ended the connection"),
        }
    }
}

impl std::error::Error for ControlError {}

/// A line of a list.
pub type Item<'a> = &'a str;

#[derive(Deserialize)]
struct Peek {
    ok: Option<bool>,
}

impl Control {
    /// Connects to the server whose runtime directory this is. Each read and write after that has
    /// `patience`.
    ///
    /// # Errors
    /// As [`RunningServer::find`] and [`RunningServer::connect`].
    pub fn connect(runtime_dir: &Path, patience: Duration) -> Result<Control, ControlError> {
        let stream = RunningServer::find(runtime_dir)?.connect()?;
        let mut control = Control { stream: BufReader::new(stream) };
        control.set_patience(patience)?;
        Ok(control)
    }

    /// Changes how long each read and write may take.
    pub fn set_patience(&mut self, patience: Duration) -> Result<(), ControlError> {
        let patience = Some(patience.max(Duration::from_millis(1)));
        let stream = self.stream.get_ref();
        stream.set_read_timeout(patience).map_err(broken)?;
        stream.set_write_timeout(patience).map_err(broken)
    }

    /// Asks, and waits for the answer. `body` goes behind `push` and `broadcast`.
    pub fn ask(&mut self, request: &Request, body: &[u8]) -> Result<Answer, ControlError> {
        self.ask_list(request, body, |_| Ok(()))
    }

    /// As [`ask`](Self::ask), giving each object that comes before the answer to `each`.
    pub fn ask_list(
        &mut self,
        request: &Request,
        body: &[u8],
        mut each: impl FnMut(Item<'_>) -> io::Result<()>,
    ) -> Result<Answer, ControlError> {
        let mut bytes = line(request).into_bytes();
        bytes.extend_from_slice(body);
        // A manager that refuses the request may hang up before it has read the body; then its
        // answer is what counts.
        let written = self.stream.get_mut().write_all(&bytes);
        let mut text = String::new();
        loop {
            text.clear();
            match (&mut self.stream).take(ANSWER_BYTES_MAX).read_line(&mut text) {
                Ok(0) => return Err(written.map_or_else(broken, |()| ControlError::Ended)),
                Ok(_) if text.ends_with('\n') => {}
                Ok(_) => return Err(ControlError::Ended),
                Err(error) => return Err(broken(error)),
            }
            let peek: Peek = parse(&text)?;
            if peek.ok.is_some() {
                return parse(&text);
            }
            each(text.trim_end()).map_err(broken)?;
        }
    }
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, ControlError> {
    serde_json::from_str(text).map_err(|error| {
        ControlError::Failed(format!("the manager's answer cannot be read: {error}"))
    })
}

fn broken(error: io::Error) -> ControlError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            ControlError::TimedOut("the manager did not answer in time".to_owned())
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ControlError::Ended,
        _ => ControlError::Failed(format!("the control connection broke: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::control::CONTROL_SOCKET;
    use std::os::unix::net::UnixListener;
    use std::thread;

    #[test]
    fn a_list_comes_line_by_line_and_then_the_answer() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(CONTROL_SOCKET)).unwrap();
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            let mut asked = String::new();
            reader.read_line(&mut asked).unwrap();
            assert_eq!(asked, "{\"cmd\":\"connections\"}\n");
            let answer = "{\"fd\":1}\n{\"fd\":2}\n{\"ok\":true,\"count\":2}\n";
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
        });
        let mut control = Control::connect(dir.path(), Duration::from_secs(10)).unwrap();
        let mut seen = Vec::new();
        let answer = control
            .ask_list(&Request::Connections { room: None, uid: None, here: false }, b"", |item| {
                seen.push(item.to_owned());
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, [r#"{"fd":1}"#, r#"{"fd":2}"#]);
        assert_eq!(answer, Answer::ok().and("count", 2));
        server.join().unwrap();
    }

    #[test]
    fn nobody_there_is_told_from_nobody_answering() {
        let dir = tempfile::tempdir().unwrap();
        let nobody = Control::connect(dir.path(), Duration::from_secs(1));
        assert!(matches!(nobody, Err(ControlError::NotRunning(_))));
        let _listener = UnixListener::bind(dir.path().join(CONTROL_SOCKET)).unwrap();
        let mut control = Control::connect(dir.path(), Duration::from_millis(1)).unwrap();
        let silent = control.ask(&Request::Ping {}, b"");
        assert!(matches!(silent, Err(ControlError::TimedOut(_))));
    }
}
