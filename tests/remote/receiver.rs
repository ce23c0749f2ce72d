//! A receiver in the test itself, which reads frames strictly, or does not.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What arrived on each connection, in the order of the connections.
#[derive(Clone, Default)]
pub(crate) struct Arrived(Arc<Mutex<Vec<Vec<u8>>>>);

impl Arrived {
    /// The numbers in the messages of each connection; the last message of one may be cut.
    pub(crate) fn numbers(&self) -> Vec<Vec<u32>> {
        self.0.lock().unwrap().iter().map(|bytes| numbers(bytes)).collect()
    }

    /// The numbers of all connections, sorted, each once.
    pub(crate) fn all(&self) -> Vec<u32> {
        let mut all: Vec<u32> = self.numbers().into_iter().flatten().collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Reads octet-counted frames: a length without leading zeros, a space, so many bytes.
pub(crate) fn numbers(mut bytes: &[u8]) -> Vec<u32> {
    let mut numbers = Vec::new();
    while let Some(space) = bytes.iter().position(|&byte| byte == b' ') {
        let length = std::str::from_utf8(&bytes[..space]).unwrap();
        assert!(!length.starts_with('0') && length.bytes().all(|byte| byte.is_ascii_digit()), "{length}");
        let length: usize = length.parse().unwrap();
        let Some(message) = bytes[space + 1..].get(..length) else { break };
        numbers.push(number(std::str::from_utf8(message).unwrap()));
        bytes = &bytes[space + 1 + length..];
    }
    numbers
}

/// The number in a message of [`super::numbered`].
pub(crate) fn number(message: &str) -> u32 {
    let (_, rest) = message.split_once("number-").unwrap_or_else(|| panic!("{message}"));
    rest.split('.').next().unwrap().parse().unwrap()
}

/// A server that accepts until this is dropped, which also closes its connections.
pub(crate) struct Receiver {
    pub(crate) arrived: Arrived,
    port: u16,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Reads what comes at `port`, or at any.
    pub(crate) fn start(port: u16) -> Self {
        Self::start_with(port, |_| {})
    }

    /// As [`start`](Self::start), but says or does something before it reads a connection.
    pub(crate) fn start_with(port: u16, before: impl Fn(&TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (arrived, over, before) =
            (Arrived::default(), Arc::new(AtomicBool::new(false)), Arc::new(before));
        let thread = std::thread::spawn({
            let (arrived, over) = (arrived.clone(), Arc::clone(&over));
            move || {
                let mut readers: Vec<(JoinHandle<()>, TcpStream)> = Vec::new();
                for stream in listener.incoming() {
                    if over.load(SeqCst) {
                        break;
                    }
                    let mut stream = stream.unwrap();
                    let at = arrived.0.lock().unwrap().len();
                    arrived.0.lock().unwrap().push(Vec::new());
                    let (arrived, before, other) =
                        (arrived.clone(), Arc::clone(&before), stream.try_clone().unwrap());
                    let reader = std::thread::spawn(move || {
                        before(&stream);
                        let mut buffer = [0; 4096];
                        // A reset ends it like a close.
                        while let Ok(length @ 1..) = stream.read(&mut buffer) {
                            arrived.0.lock().unwrap()[at].extend_from_slice(&buffer[..length]);
                        }
                    });
                    readers.push((reader, other));
                }
                for (reader, stream) in readers {
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                    reader.join().unwrap();
                }
            }
        });
        Receiver { arrived, port, over, thread: Some(thread) }
    }

    /// Its address as in the configuration.
    pub(crate) fn url(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        // Wakes it.
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
            let _ = stream.flush();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
