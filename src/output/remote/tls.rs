//! TLS over a connection (RFC 5425): the server is always verified.
//!
//! Certificates and keys are read at each connection, so that renewed ones need no restart.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore};

use super::tcp::{self, Timed};
use crate::config::Tls;

/// Where distributions keep the certificates of public authorities: Debian, RHEL, SUSE, Alpine.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Bytes of the largest file of certificates.
const LARGEST: u64 = 8 << 20;
/// How long a server is given to refuse a client's certificate, which with TLS 1.3 it does after the handshake.
const REACTION: Duration = Duration::from_millis(300);

/// How long a server that said goodbye is given to close the connection.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection.
#[derive(Debug)]
pub struct TlsLink {
    connection: ClientConnection,
    timed: Timed,
}

impl TlsLink {
    /// Connects and shakes hands; `host` is the name in the server's URL.
    pub fn connect(settings: &Tls, host: &str, address: &SocketAddr, deadline: Instant) -> io::Result<Self> {
        let config = configuration(settings)?;
        let name = settings.server_name.as_deref().unwrap_or(host);
        let name = name.strip_suffix('.').unwrap_or(name);
        let server = ServerName::try_from(name.to_owned())
            .map_err(|_| io::Error::other(format!("`{name}` is no name that a certificate can have")))?;
        let connection = ClientConnection::new(Arc::new(config), server).map_err(io::Error::other)?;
        let mut link = TlsLink { connection, timed: Timed::connect(address, deadline)? };
        while link.connection.is_handshaking() {
            link.connection.complete_io(&mut link.timed).map_err(explained)?;
        }
        let late = link.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        if settings.client.is_some() && late {
            link.timed.wait_readable(REACTION);
            link.listen()?;
        }
        Ok(link)
    }

    /// The connection below.
    pub fn timed(&mut self) -> &mut Timed {
        &mut self.timed
    }

    /// Writes everything.
    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.connection.writer().write_all(bytes)?;
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.timed)?;
        }
        Ok(())
    }

    /// Throws away what the server said; an error if the connection has ended.
    pub fn listen(&mut self) -> io::Result<()> {
        let connection = &mut self.connection;
        tcp::listen(&mut self.timed, |timed, bytes| take(connection, timed, bytes))
    }

    /// Says that nothing more comes, if that can be said at once.
    pub fn close(&mut self) {
        self.connection.send_close_notify();
        if self.timed.patience(Duration::ZERO).is_err() {
            return;
        }
        // Nobody depends on it: what was written is acknowledged or will be written again.
        let _ = self.connection.write_tls(&mut self.timed);
    }
}

/// rustls's errors as sentences: its own begin in the middle.
fn explained(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => {
            io::Error::new(error.kind(), format!("the server refuses TLS: {alert:?}"))
        }
        Some(rustls::Error::InvalidCertificate(reason)) => {
            io::Error::new(error.kind(), format!("the server's certificate is refused: {reason}"))
        }
        Some(inner) => io::Error::new(error.kind(), format!("TLS failed: {inner}")),
        None => error,
    }
}

/// Takes what the server said.
fn take(connection: &mut ClientConnection, timed: &mut Timed, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        connection.read_tls(&mut bytes)?;
        let state = connection
            .process_new_packets()
            .map_err(|error| explained(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        let mut plain = [0; 1024];
        while let Ok(1..) = connection.reader().read(&mut plain) {}
        if state.peer_has_closed() {
            return Err(ended(timed));
        }
    }
    // An answer, as to a new key.
    while connection.wants_write() {
        connection.write_tls(timed)?;
    }
    Ok(())
}

/// The error for a server that said it will send nothing more (close_notify). That is not yet the end: it may close with
/// messages that it has not read, and then its kernel resets the connection where it would otherwise end it.
fn ended(timed: &mut Timed) -> io::Error {
    let deadline = Instant::now() + FAREWELL;
    loop {
        // Nothing counts that comes after it.
        let Err(error) = tcp::listen(timed, |_, _| Ok(())) else {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let message = "the server ended TLS but left the connection open";
                return io::Error::new(io::ErrorKind::TimedOut, message);
            }
            timed.wait_readable(left);
            continue;
        };
        return error;
    }
}

fn configuration(settings: &Tls) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let authorities = match &settings.ca_file {
        Some(file) => certificates(file)?,
        None => {
            let file = SYSTEM.iter().map(Path::new).find(|file| file.exists());
            let file = file.ok_or_else(|| {
                let places = SYSTEM.join(", ");
                io::Error::other(format!(
                    "there are no certificates of authorities in {places}; name a `ca-file`"
                ))
            })?;
            certificates(file)?
        }
    };
    let (usable, _) = roots.add_parsable_certificates(authorities);
    if usable == 0 {
        return Err(io::Error::other("none of the `ca-file`'s certificates can be read"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots);
    match &settings.client {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let pair = builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?);
            pair.map_err(|error| {
                let (certificate, key) = (certificate.display(), key.display());
                io::Error::other(format!("{certificate} and {key} do not belong together: {error}"))
            })
        }
    }
}

fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let (bytes, _) = read(file)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(io::Error::other(format!("{} holds no certificate in PEM", file.display()))),
        Err(error) => Err(io::Error::other(format!("{} is no PEM: {error}", file.display()))),
    }
}

fn private_key(file: &Path) -> io::Result<PrivateKeyDer<'static>> {
    let (bytes, mode) = read(file)?;
    // A group may read it, as that of Debian's ssl-cert does.
    if mode & 0o027 != 0 {
        let name = file.display();
        let message = format!(
            "the private key {name} is refused: its mode {:04o} lets others read or its group write it; \
             chmod 0600 {name}, and take a new key if anybody may have read this one",
            mode & 0o7777
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|error| io::Error::other(format!("{} holds no private key in PEM: {error}", file.display())))
}

/// A file's bytes and the mode of what was read.
fn read(file: &Path) -> io::Result<(Vec<u8>, u32)> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot read {}: {error}", file.display()));
    let opened = File::open(file).map_err(named)?;
    let status = opened.metadata().map_err(named)?;
    if !status.is_file() || status.len() > LARGEST {
        return Err(io::Error::other(format!("{} is no file of at most {LARGEST} bytes", file.display())));
    }
    let mut bytes = Vec::new();
    opened.take(LARGEST).read_to_end(&mut bytes).map_err(named)?;
    Ok((bytes, status.mode()))
}
