//! The view at work: waits for the daemon, for keys and for signals, and draws.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde_json::Value;

use super::super::exit;
use super::super::status::Place;
use super::view::{Todo, View};
use super::{Line, frame, keys, over};
use crate::control::Request;
use crate::control::client::Listening;
use crate::incident::store::Decision;
use crate::incident::story::State;
use crate::sys::terminal;

/// How often the answer to an order is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Columns and lines of a terminal that does not tell.
const USUAL: (usize, usize) = (80, 24);

/// Why the view ends.
enum End {
    /// Somebody wants it to.
    Wanted,
    /// The daemon tells nothing more.
    Over(Option<io::Error>),
    /// The terminal cannot be used.
    Terminal(io::Error),
}

pub(super) fn run(listening: Listening, place: &Place) -> u8 {
    // What it returns is said when the terminal is as before.
    match Live::start(listening, place.clone()).and_then(|mut live| live.watch()) {
        Ok(End::Wanted) => exit::OK,
        Ok(End::Over(error)) => over(error),
        Ok(End::Terminal(error)) | Err(error) => {
            eprintln!(
                "execwatch: the terminal cannot be used: {error}; `execwatch watch | cat` prints lines"
            );
            exit::IO
        }
    }
}

struct Live {
    listening: Listening,
    place: Place,
    signals: SignalFd,
    screen: super::screen::Screen,
    view: View,
    opened: Instant,
    typed: Vec<u8>,
    /// Where orders are answered, and how many are not yet.
    answers: (Sender<String>, Receiver<String>),
    orders: usize,
}

impl Live {
    fn start(listening: Listening, place: Place) -> io::Result<Live> {
        let mut taken = SigSet::empty();
        for signal in [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGQUIT,
            Signal::SIGHUP,
            Signal::SIGWINCH,
            // The terminal would be left as it is.
            Signal::SIGTSTP,
        ] {
            taken.add(signal);
        }
        taken.thread_block()?;
        let signals = SignalFd::with_flags(&taken, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Live {
            listening,
            place,
            signals,
            screen: super::screen::Screen::take()?,
            view: View::default(),
            opened: Instant::now(),
            typed: Vec::new(),
            answers: channel(),
            orders: 0,
        })
    }

    fn watch(&mut self) -> io::Result<End> {
        loop {
            let (columns, lines) = terminal::size().unwrap_or(USUAL);
            if let Err(error) = self.screen.show(&frame::frame(&self.view, columns, lines)) {
                return Ok(End::Terminal(error));
            }
            let timeout = if self.orders == 0 {
                PollTimeout::NONE
            } else {
                PollTimeout::try_from(LOOK_EVERY).unwrap_or(PollTimeout::MAX)
            };
            let stdin = io::stdin();
            let mut waited = [
                PollFd::new(self.listening.as_fd(), PollFlags::POLLIN),
                PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            // An interruption only means looking again.
            let _ = poll(&mut waited, timeout);
            let [told, typed, signalled] = waited.map(|fd| fd.any().unwrap_or(false));
            while signalled && let Ok(Some(signal)) = self.signals.read_signal() {
                match Signal::try_from(signal.ssi_signo as i32) {
                    Ok(Signal::SIGWINCH | Signal::SIGTSTP) | Err(_) => {}
                    Ok(_) => return Ok(End::Wanted),
                }
            }
            if typed && self.type_keys()? {
                return Ok(End::Wanted);
            }
            while let Ok(answer) = self.answers.1.try_recv() {
                self.orders -= 1;
                self.view.message = answer;
            }
            if told {
                match self.listening.read() {
                    Ok(Some(lines)) => lines.iter().for_each(|line| self.take(line)),
                    ended => return Ok(End::Over(ended.err())),
                }
            }
        }
    }

    fn take(&mut self, line: &[u8]) {
        let Ok(line) = serde_json::from_slice::<Line<'_>>(line) else { return };
        self.view.missed += line.missed.unwrap_or(0);
        if let Some(record) =
            line.record.and_then(|record| serde_json::from_slice(record.get().as_bytes()).ok())
        {
            self.view.record(&record);
        }
        if let Some(state) = line.state {
            self.view.take_state(state, self.opened.elapsed());
        }
    }

    /// Does what was typed; true for the end.
    fn type_keys(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 256];
        // A terminal that has gone ends the view.
        let length = match io::stdin().lock().read(&mut buffer) {
            Ok(0) | Err(_) => return Ok(true),
            Ok(length) => length,
        };
        self.typed.extend_from_slice(&buffer[..length]);
        for key in keys::take(&mut self.typed) {
            match self.view.key(key) {
                Todo::Nothing => {}
                Todo::Quit => return Ok(true),
                Todo::Acknowledge(id) => {
                    let decision = Decision { state: State::Acknowledged, verdict: None, note: None };
                    let decision = serde_json::to_value(decision).unwrap_or_default();
                    let done = format!("incident {id} is acknowledged");
                    self.order("incident", &[("id", id.into()), ("decision", decision)], done)?;
                }
                Todo::Order(order, id) => self.order(order, &[("id", id.into())], String::new())?,
            }
        }
        Ok(false)
    }

    /// Asks the daemon for something, on a thread of its own: the view goes on. `done` is said if the answer says nothing.
    fn order(&mut self, command: &str, arguments: &[(&str, Value)], done: String) -> io::Result<()> {
        let mut request = Request::new(command);
        let arguments = arguments.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        request.arguments.extend(arguments);
        let (place, answers) = (self.place.clone(), self.answers.0.clone());
        std::thread::Builder::new().name("order".to_owned()).spawn(move || {
            let said = match place.try_ask(&request) {
                Ok(answer) => answer["message"].as_str().map_or(done, str::to_owned),
                Err(error) => error.to_string(),
            };
            // The view may have ended.
            let _ = answers.send(said);
        })?;
        self.orders += 1;
        self.view.message = "the daemon is asked".to_owned();
        Ok(())
    }
}
