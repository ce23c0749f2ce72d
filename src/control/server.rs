//! The daemon's side of the control socket: one thread that waits for clients and never for one client.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::place::{self, PlaceError};
use super::{Commands, Kind, LONGEST_REQUEST, Refusal, Reply, Stream, Streaming, Waker, answer_line};
use crate::harden;
use crate::harden::roles::Role;

/// Clients that are served at once beside [streams](Stream); others wait in the socket's backlog.
const MOST_CLIENTS: usize = 8;
/// How long a client may take to ask, and then to read its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often streams are asked for more, though nothing woke the server.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long nobody is accepted after no descriptor was to be had: the socket stays ready, so without a pause the thread
/// would do nothing else.
const PAUSE: Duration = Duration::from_millis(100);

/// The control socket. It is closed and its file removed when this is dropped, which waits for the command that is being
/// carried out.
pub struct Server {
    path: PathBuf,
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens in `folder` and answers with `commands`.
    pub fn start(folder: &Path, commands: Commands) -> Result<Server, PlaceError> {
        let listener = place::open(folder)?;
        let path = place::path(folder);
        let failed = |error| PlaceError::Socket(path.clone(), error);
        let (stop, stopped) = UnixStream::pair().map_err(failed)?;
        let waker = Waker::new().map_err(|error| failed(error.into()))?;
        let (clients, shortage) = (Vec::new(), Shortage::default());
        let serving = Serving { listener, stopped, waker, commands, clients, shortage };
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || {
                harden::enter(Role::Control);
                serving.run();
            })
            .map_err(failed)?;
        Ok(Server { path, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes no more clients, and has the thread end when the command that is being carried out is over. Waits for nothing.
    pub fn close(&mut self) {
        if self.stop.take().is_some() {
            // Who still connects would not be answered.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// The same, and leaves the thread to the end of the process, which may be before that of a command.
    pub fn leave(mut self) {
        self.close();
        self.thread = None;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has ended the process already.
            let _ = thread.join();
        }
    }
}

/// A client and how far it is.
struct Client {
    stream: UnixStream,
    deadline: Instant,
    asked: Vec<u8>,
    /// What is left of its answer.
    answer: Option<Vec<u8>>,
    /// Where more comes from. Such a client has no deadline: it waits for what happens, and may be slow.
    stream_of: Option<Box<dyn Stream>>,
}

/// How a client goes on.
#[derive(PartialEq, Eq)]
enum Next {
    Wait,
    Done,
}

struct Serving {
    listener: UnixListener,
    stopped: UnixStream,
    waker: Waker,
    commands: Commands,
    clients: Vec<Client>,
    shortage: Shortage,
}

/// Whether a client can be accepted, as far as descriptors and memory go.
#[derive(Debug, Default)]
struct Shortage {
    /// Nobody is accepted before.
    until: Option<Instant>,
    said: bool,
}

impl Shortage {
    /// A client could not be accepted. True if that is to be said: once for each shortage.
    fn note(&mut self, error: &io::Error, now: Instant) -> bool {
        let number = error.raw_os_error().map(Errno::from_raw);
        if !matches!(number, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)) {
            // One that has gone again is no concern of ours.
            return false;
        }
        self.until = Some(now + PAUSE);
        !std::mem::replace(&mut self.said, true)
    }

    /// How long nobody is accepted any more.
    fn left(&self, now: Instant) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }
}

impl Serving {
    fn run(mut self) {
        loop {
            let Some(ready) = self.wait() else { return };
            let now = Instant::now();
            let mut index = 0;
            let mut streams = self.streams();
            let (commands, waker) = (&mut self.commands, &self.waker);
            if ready.woken {
                waker.take();
            }
            self.clients.retain_mut(|client| {
                let is_ready = ready.clients.get(index).copied().unwrap_or(false);
                index += 1;
                let was_one = client.stream_of.is_some();
                let mut next = Next::Wait;
                if is_ready {
                    next = client.go_on(commands, &Streaming { running: streams, waker });
                }
                if next == Next::Wait && (ready.woken || now >= client.deadline) {
                    next = client.tell_more();
                }
                streams += usize::from(!was_one && client.stream_of.is_some());
                next == Next::Wait && (client.stream_of.is_some() || now < client.deadline)
            });
            if ready.listener {
                self.accept();
            }
        }
    }

    fn streams(&self) -> usize {
        self.clients.iter().filter(|client| client.stream_of.is_some()).count()
    }

    /// Waits for something to do; `None` if it is to end.
    fn wait(&self) -> Option<Ready> {
        let now = Instant::now();
        let pause = self.shortage.left(now);
        // A stream that is not taken waits for its client alone.
        let waiting =
            self.clients.iter().filter(|client| client.stream_of.is_none() || client.answer.is_none());
        let of_clients = waiting.map(|client| client.deadline.saturating_duration_since(now));
        let timeout = of_clients.chain(pause).min().map_or(PollTimeout::NONE, |left| {
            // Rounded up, so that the deadline has passed after it.
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let has_room = self.clients.len() - self.streams() < MOST_CLIENTS && pause.is_none();
        let accepting = if has_room { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut waited = vec![
            PollFd::new(self.stopped.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), accepting),
            PollFd::new(self.waker.0.as_fd(), PollFlags::POLLIN),
        ];
        waited.extend(self.clients.iter().map(|client| PollFd::new(client.fd(), client.waits_for())));
        if poll(&mut waited, timeout).is_err() {
            // Interrupted: looked at again.
            return Some(Ready { listener: false, woken: false, clients: Vec::new() });
        }
        let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        let [stopped, listener, woken, clients @ ..] = waited.as_slice() else { return None };
        (!is_ready(stopped)).then(|| Ready {
            listener: is_ready(listener) && has_room,
            woken: is_ready(woken),
            clients: clients.iter().map(is_ready).collect(),
        })
    }

    fn accept(&mut self) {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                if self.shortage.note(&error, Instant::now()) {
                    log::warn!(
                        "whoever asks at the control socket has to wait: {error}; it is tried again every {} ms",
                        PAUSE.as_millis()
                    );
                }
                return;
            }
        };
        self.shortage = Shortage::default();
        let root = getsockopt(&stream, PeerCredentials).is_ok_and(|peer| peer.uid() == 0);
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        let mut client = Client { stream, deadline, asked: Vec::new(), answer: None, stream_of: None };
        if !root {
            // It gets no place among the clients: what does not fit its buffer at once it does not get.
            client.refuse(Refusal { kind: Kind::NotPermitted, message: "only root is answered".to_owned() });
            client.write();
            return;
        }
        self.clients.push(client);
    }
}

/// Who can be read from or written to.
struct Ready {
    listener: bool,
    woken: bool,
    clients: Vec<bool>,
}

impl Client {
    fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    fn waits_for(&self) -> PollFlags {
        if self.answer.is_some() { PollFlags::POLLOUT } else { PollFlags::POLLIN }
    }

    fn go_on(&mut self, commands: &mut Commands, streaming: &Streaming<'_>) -> Next {
        if self.answer.is_none() && self.read(commands, streaming) == Next::Done {
            return Next::Done;
        }
        match self.write() {
            Next::Wait if self.answer.is_none() => self.tell_more(),
            next => next,
        }
    }

    /// Tells what there is to be told by a stream, unless the client has still to take what was told before.
    fn tell_more(&mut self) -> Next {
        let Some(stream) = &mut self.stream_of else { return Next::Wait };
        if self.answer.is_some() {
            return Next::Wait;
        }
        self.deadline = Instant::now() + LOOK_EVERY;
        let mut told = Vec::new();
        stream.more(&mut told);
        if told.is_empty() {
            return Next::Wait;
        }
        self.answer = Some(told);
        self.write()
    }

    fn read(&mut self, commands: &mut Commands, streaming: &Streaming<'_>) -> Next {
        let mut buffer = [0; 4096];
        let length = match self.stream.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if is_for_now(&error) => return Next::Wait,
            Err(_) => return Next::Done,
        };
        if self.stream_of.is_some() {
            // It has gone, or says something where nothing more is asked.
            return Next::Done;
        }
        self.asked.extend_from_slice(&buffer[..length]);
        let at_end = length == 0;
        if at_end && self.asked.is_empty() {
            return Next::Done;
        }
        if let Some(reply) = commands.answer_to(&self.asked, at_end, streaming) {
            match reply {
                Reply::Whole(answer) => self.answer(answer),
                Reply::Stream(stream) => self.stream_of = Some(stream),
            }
        } else if self.asked.len() > LONGEST_REQUEST {
            self.refuse(Refusal::usage(format!("the request is longer than {LONGEST_REQUEST} bytes")));
        }
        Next::Wait
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.answer(answer_line(Err(refusal)));
    }

    fn answer(&mut self, answer: Vec<u8>) {
        self.answer = Some(answer);
        self.deadline = Instant::now() + PATIENCE;
    }

    fn write(&mut self) -> Next {
        let Some(left) = &mut self.answer else { return Next::Wait };
        match self.stream.write(left) {
            Ok(written) => {
                left.drain(..written);
                match (left.is_empty(), &self.stream_of) {
                    (true, None) => return Next::Done,
                    (true, Some(_)) => self.answer = None,
                    (false, _) => {}
                }
                Next::Wait
            }
            Err(error) if is_for_now(&error) => Next::Wait,
            Err(_) => Next::Done,
        }
    }
}

fn is_for_now(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_pauses_and_is_said_once() {
        let start = Instant::now();
        let mut shortage = Shortage::default();
        let error = |number: Errno| io::Error::from(number);
        assert!(!shortage.note(&error(Errno::ECONNABORTED), start));
        assert_eq!(shortage.left(start), None);
        assert!(shortage.note(&error(Errno::EMFILE), start));
        assert_eq!(shortage.left(start), Some(PAUSE));
        assert_eq!(shortage.left(start + PAUSE), None);
        assert!(!shortage.note(&error(Errno::ENFILE), start + PAUSE));
        assert_eq!(shortage.left(start + PAUSE), Some(PAUSE));
    }

    #[test]
    fn a_command_that_lasts_keeps_nobody_from_leaving() {
        let folder = tempfile::tempdir().unwrap();
        let (begin, begun) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let mut commands = Commands::default();
        commands.add("last", move |_| {
            begin.send(()).unwrap();
            // Until the test is over.
            let _ = ended.recv();
            Ok(serde_json::Value::Null)
        });
        let mut server = Server::start(folder.path(), commands).unwrap();
        let mut client = UnixStream::connect(server.path()).unwrap();
        client.write_all(b"{\"command\":\"last\"}\n").unwrap();
        begun.recv().unwrap();
        let path = server.path().to_owned();
        server.close();
        assert!(!path.exists());
        server.leave();
        drop(end);
    }
}
