//! The control socket: how an administrator asks the running daemon.
//!
//! A connection carries one line of JSON, `{"command": "status"}`, with whatever else the command takes, and gets one line
//! back: `{"result": ...}` or `{"error": {"kind": ..., "message": ...}}`. Then the daemon closes. A [`Stream`] is answered
//! with lines for as long as the client stays. Only root is answered.
//! [`server`] is the daemon's side, on a thread of its own; [`client`] is that of the subcommands. What commands there
//! are, the daemon says where it sets its parts up ([`Commands`]).

pub mod client;
mod http;
pub mod place;
pub mod server;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};
use serde_json::{Map, Value, json};

/// The socket's name in the runtime folder.
pub const SOCKET: &str = "control.sock";

/// Bytes of a request; one that is longer is refused.
pub const LONGEST_REQUEST: usize = 64 << 10;

/// Streams at once.
pub const MOST_STREAMS: usize = 4;

/// How streams stand, for one that begins.
struct Streaming<'s> {
    running: usize,
    waker: &'s Waker,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The command's name.
    pub command: String,
    /// What else the request holds.
    pub arguments: Map<String, Value>,
}

impl Request {
    /// A request without arguments.
    pub fn new(command: &str) -> Self {
        Request { command: command.to_owned(), arguments: Map::new() }
    }

    /// Reads the line of a request.
    pub fn parse(line: &[u8]) -> Result<Request, Refusal> {
        let document: Value = serde_json::from_slice(line).map_err(|error| {
            Refusal::usage(format!(
                "the request is not a line of JSON such as {{\"command\": \"status\"}}: {error}"
            ))
        })?;
        let Value::Object(mut arguments) = document else {
            return Err(Refusal::usage("the request must be a JSON object"));
        };
        match arguments.remove("command") {
            Some(Value::String(command)) => Ok(Request { command, arguments }),
            Some(_) => Err(Refusal::usage("`command` must be a string")),
            None => Err(Refusal::usage("the request has no `command`")),
        }
    }

    /// The line of a request, with its newline.
    pub fn line(&self) -> Vec<u8> {
        let mut document = self.arguments.clone();
        document.insert("command".to_owned(), Value::String(self.command.clone()));
        line(&Value::Object(document))
    }
}

/// What a refused request gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A word for programs.
    pub kind: Kind,
    /// A sentence for people.
    pub message: String,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong in itself.
    Usage,
    /// The asking process is not root's.
    NotPermitted,
    /// It was understood, and could not be done.
    Failed,
}

const KINDS: [(&str, Kind); 3] =
    [("usage", Kind::Usage), ("not-permitted", Kind::NotPermitted), ("failed", Kind::Failed)];

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = KINDS.iter().find(|(_, kind)| kind == self).map_or("failed", |(word, _)| word);
        f.write_str(word)
    }
}

impl Refusal {
    /// The request is wrong in itself.
    pub fn usage(message: impl Into<String>) -> Self {
        Refusal { kind: Kind::Usage, message: message.into() }
    }

    /// It was understood, and could not be done.
    pub fn failed(message: impl Into<String>) -> Self {
        Refusal { kind: Kind::Failed, message: message.into() }
    }
}

/// What a command gives back.
pub type Answer = Result<Value, Refusal>;

/// The line of an answer, with its newline.
fn answer_line(answer: Answer) -> Vec<u8> {
    line(&match answer {
        Ok(result) => json!({ "result": result }),
        Err(refusal) => json!({ "error": { "kind": refusal.kind.to_string(), "message": refusal.message } }),
    })
}

/// Reads the line of an answer; `None` if it is none.
fn read_answer(line: &[u8]) -> Option<Answer> {
    let Ok(Value::Object(mut document)) = serde_json::from_slice(line) else { return None };
    if let Some(result) = document.remove("result") {
        return Some(Ok(result));
    }
    let error = document.get("error")?;
    let word = error.get("kind")?.as_str()?;
    let kind = KINDS.iter().find(|(known, _)| *known == word).map_or(Kind::Failed, |&(_, kind)| kind);
    Some(Err(Refusal { kind, message: error.get("message")?.as_str()?.to_owned() }))
}

fn line(document: &Value) -> Vec<u8> {
    // JSON escapes newlines, so the document is a line.
    let mut line = document.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// What a command does. It runs on the socket's thread, so the next client waits for it: it takes no lock that a listener
/// takes, and what needs longer than a moment is only begun here.
pub type Command = Box<dyn FnMut(&Request) -> Answer + Send>;

/// The commands that the daemon knows.
#[derive(Default)]
pub struct Commands {
    known: BTreeMap<&'static str, Command>,
    streams: BTreeMap<&'static str, Begin>,
    pages: BTreeMap<&'static str, Page>,
}

/// What goes on being told for as long as a client listens.
pub trait Stream: Send {
    /// Appends what there is to be told now, in lines. It is asked when it has woken the server, every second, and when the
    /// client has taken what was told before: whoever is slow is told what there is then.
    fn more(&mut self, into: &mut Vec<u8>);
}

/// Begins a stream. It is given what wakes the server.
pub type Begin = Box<dyn FnMut(&Request, &Waker) -> Result<Box<dyn Stream>, Refusal> + Send>;

/// Wakes the server, so that it asks streams for more.
#[derive(Debug, Clone)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    fn new() -> nix::Result<Waker> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Waker(Arc::new(EventFd::from_value_and_flags(0, flags)?)))
    }

    /// Does not wait.
    pub fn wake(&self) {
        // It fails if the count is full, and then the server is woken all the same.
        let _ = self.0.write(1);
    }

    /// It was woken; it is not any more.
    fn take(&self) {
        // It fails if it was not.
        let _ = self.0.read();
    }
}

/// What a request gets.
enum Reply {
    /// All at once.
    Whole(Vec<u8>),
    /// Bit by bit.
    Stream(Box<dyn Stream>),
}

/// What is answered to a GET of HTTP: media type and text.
pub type Page = Box<dyn FnMut() -> (&'static str, String) + Send>;

impl Commands {
    /// Adds a command.
    pub fn add(&mut self, name: &'static str, command: impl FnMut(&Request) -> Answer + Send + 'static) {
        self.known.insert(name, Box::new(command));
    }

    /// Adds a command that is answered bit by bit.
    pub fn add_stream(
        &mut self,
        name: &'static str,
        begin: impl FnMut(&Request, &Waker) -> Result<Box<dyn Stream>, Refusal> + Send + 'static,
    ) {
        self.streams.insert(name, Box::new(begin));
    }

    /// Adds a path that is answered over HTTP. Without any, HTTP is not understood.
    pub fn add_page(
        &mut self,
        path: &'static str,
        page: impl FnMut() -> (&'static str, String) + Send + 'static,
    ) {
        self.pages.insert(path, Box::new(page));
    }

    /// Answers what was received so far, if it is complete.
    fn answer_to(&mut self, received: &[u8], at_end: bool, streaming: &Streaming<'_>) -> Option<Reply> {
        if !self.pages.is_empty() && http::is_begun(received) {
            return http::answer(&mut self.pages, received, at_end).map(Reply::Whole);
        }
        let end = received.iter().position(|&byte| byte == b'\n').or(at_end.then_some(received.len()))?;
        let line = received.get(..end)?;
        Some(match self.stream(line, streaming) {
            Some(Ok(stream)) => Reply::Stream(stream),
            Some(Err(refusal)) => Reply::Whole(answer_line(Err(refusal))),
            None => Reply::Whole(answer_line(self.answer(line))),
        })
    }

    /// Begins a stream, if that is what is asked for.
    fn stream(&mut self, line: &[u8], streaming: &Streaming<'_>) -> Option<Result<Box<dyn Stream>, Refusal>> {
        let request = Request::parse(line).ok()?;
        let begin = self.streams.get_mut(request.command.as_str())?;
        if streaming.running >= MOST_STREAMS {
            return Some(Err(Refusal::failed(format!(
                "{MOST_STREAMS} viewers look on already, and no more are served: end one of them"
            ))));
        }
        Some(begin(&request, streaming.waker))
    }

    /// Answers the line of a request.
    fn answer(&mut self, line: &[u8]) -> Answer {
        let request = Request::parse(line)?;
        match self.known.get_mut(request.command.as_str()) {
            Some(command) => command(&request),
            None => {
                let names: Vec<&str> = self.known.keys().chain(self.streams.keys()).copied().collect();
                Err(Refusal::usage(format!("there is no such command; there are {}", names.join(", "))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands() -> Commands {
        let mut commands = Commands::default();
        commands.add("say", |request| match request.arguments.get("word") {
            Some(word) => Ok(json!({ "said": word })),
            None => Err(Refusal::failed("nothing\nto say")),
        });
        commands
    }

    #[test]
    fn a_request_and_its_answer_are_lines() {
        let request = Request {
            command: "say".into(),
            arguments: [("word".to_owned(), json!("a\nb"))].into_iter().collect(),
        };
        let line = request.line();
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        assert_eq!(Request::parse(&line), Ok(request));
        let answer = answer_line(commands().answer(&line));
        assert_eq!(answer.iter().position(|&byte| byte == b'\n'), Some(answer.len() - 1));
        assert_eq!(read_answer(&answer), Some(Ok(json!({ "said": "a\nb" }))));
        let refused = answer_line(commands().answer(br#"{"command":"say"}"#));
        assert_eq!(read_answer(&refused), Some(Err(Refusal::failed("nothing\nto say"))));
        assert_eq!(read_answer(b"{}"), None);
        assert_eq!(read_answer(b"nonsense"), None);
    }

    #[test]
    fn what_is_wrong_with_a_request_is_said() {
        for (line, said) in [
            ("", "not a line of JSON"),
            ("{\"command\":", "not a line of JSON"),
            ("[1]", "must be a JSON object"),
            ("{}", "has no `command`"),
            ("{\"command\":7}", "must be a string"),
            ("{\"command\":\"sya\"}", "there are say"),
        ] {
            let refusal = commands().answer(line.as_bytes()).unwrap_err();
            assert_eq!(refusal.kind, Kind::Usage);
            assert!(refusal.message.contains(said), "{line}: {}", refusal.message);
        }
        // Nothing nests so deep that it overflows a stack.
        assert!(commands().answer("[".repeat(LONGEST_REQUEST).as_bytes()).is_err());
    }
}
