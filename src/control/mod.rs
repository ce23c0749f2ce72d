//! The control socket: how an administrator asks the running daemon.
//!
//! A connection carries one line of JSON, `{"command": "status"}`, with whatever else the command takes, and gets one line
//! back: `{"result": ...}` or `{"error": {"kind": ..., "message": ...}}`. Then the daemon closes. Only root is answered.
//! [`server`] is the daemon's side, on a thread of its own; [`client`] is that of the subcommands. What commands there
//! are, the daemon says where it sets its parts up ([`Commands`]).

pub mod client;
mod http;
pub mod place;
pub mod server;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value, json};

/// The socket's name in the runtime folder.
pub const SOCKET: &str = "control.sock";

/// Bytes of a request; one that is longer is refused.
pub const LONGEST_REQUEST: usize = 64 << 10;

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
    pages: BTreeMap<&'static str, Page>,
}

/// What is answered to a GET of HTTP: media type and text.
pub type Page = Box<dyn FnMut() -> (&'static str, String) + Send>;

impl Commands {
    /// Adds a command.
    pub fn add(&mut self, name: &'static str, command: impl FnMut(&Request) -> Answer + Send + 'static) {
        self.known.insert(name, Box::new(command));
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
    fn answer_to(&mut self, received: &[u8], at_end: bool) -> Option<Vec<u8>> {
        if !self.pages.is_empty() && http::is_begun(received) {
            return http::answer(&mut self.pages, received, at_end);
        }
        let end = received.iter().position(|&byte| byte == b'\n').or(at_end.then_some(received.len()))?;
        Some(answer_line(self.answer(&received[..end])))
    }

    /// Answers the line of a request.
    fn answer(&mut self, line: &[u8]) -> Answer {
        let request = Request::parse(line)?;
        match self.known.get_mut(request.command.as_str()) {
            Some(command) => command(&request),
            None => {
                let names: Vec<&str> = self.known.keys().copied().collect();
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
