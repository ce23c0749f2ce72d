//! How a TLS server ends a connection tells whether it has read what its kernel acknowledged.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use execwatch::config::{Remote, Tls};
use execwatch::output::Destination;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

use super::receiver::numbers;
use super::support::servers::Authority;
use super::support::wait_until;
use super::{all, flush, numbered, output, remote, write, write_all};

/// More than is read together with the end of the handshake.
const MESSAGES: u32 = 100;

/// What the server does before it says that it will send nothing more (close_notify), and after.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Farewell {
    /// Reads everything, and closes the connection.
    Read,
    /// Reads a little, and closes the connection.
    Unread,
    /// Reads a little, and leaves the connection open.
    Open,
}

/// A connection's end at the server.
struct Stream {
    tls: ServerConnection,
    tcp: TcpStream,
    plain: Vec<u8>,
}

impl Stream {
    fn accept(listener: &TcpListener, config: &Arc<ServerConfig>) -> Self {
        let (mut tcp, _) = listener.accept().unwrap();
        let mut tls = ServerConnection::new(Arc::clone(config)).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp).unwrap();
        }
        Stream { tls, tcp, plain: Vec::new() }
    }

    /// Reads once; false at the end.
    fn read(&mut self) -> bool {
        let read = self.tls.read_tls(&mut self.tcp).unwrap();
        let closed = self.tls.process_new_packets().unwrap().peer_has_closed();
        // Until nothing is left for now.
        let _ = self.tls.reader().read_to_end(&mut self.plain);
        read > 0 && !closed
    }

    fn say_farewell(&mut self) {
        self.tls.send_close_notify();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.tcp).unwrap();
        }
    }
}

/// The messages on the connection that was ended so, and on the next one, to which one more was written.
fn after(farewell: Farewell) -> Option<[Vec<u32>; 2]> {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "good")?;
    let (certificate, key) = authority.sign("server", "localhost");
    let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())
        .unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("tls://localhost:{}", listener.local_addr().unwrap().port());
    let (acknowledged, wait) = mpsc::channel();
    let (said, heard) = mpsc::channel();
    let server: JoinHandle<[Vec<u32>; 2]> = std::thread::spawn(move || {
        let config = Arc::new(config);
        let mut first = Stream::accept(&listener, &config);
        wait.recv().unwrap();
        match farewell {
            Farewell::Read => while numbers(&first.plain).len() < MESSAGES as usize && first.read() {},
            Farewell::Unread | Farewell::Open => drop(first.read()),
        }
        first.say_farewell();
        let Stream { tls: _tls, tcp, plain } = first;
        let open = (farewell == Farewell::Open).then_some(tcp);
        said.send(()).unwrap();
        let mut second = Stream::accept(&listener, &config);
        while second.read() {}
        drop(open);
        [numbers(&plain), numbers(&second.plain)]
    });
    let tls = Tls { ca_file: Some(authority.certificate()), ..Tls::default() };
    let mut output = output(Remote { tls, ..remote(&[&url]) });
    write_all(&mut output, 1..=MESSAGES);
    flush(&mut output);
    acknowledged.send(()).unwrap();
    heard.recv().unwrap();
    write(&mut output, &numbered(MESSAGES + 1));
    flush(&mut output);
    wait_until("the acknowledgements", || (output.held() == 0).then_some(()));
    // Closes the connection in order.
    output.reopen();
    Some(server.join().unwrap())
}

#[test]
fn what_was_read_does_not_come_twice() {
    let Some(arrived) = after(Farewell::Read) else { return };
    assert_eq!(arrived, [all(1..=MESSAGES), vec![MESSAGES + 1]]);
}

#[test]
fn what_was_not_read_comes_again() {
    for farewell in [Farewell::Unread, Farewell::Open] {
        let Some([first, second]) = after(farewell) else { return };
        assert!(first.len() < MESSAGES as usize, "{first:?}");
        assert_eq!(second, all(1..=MESSAGES + 1));
    }
}
