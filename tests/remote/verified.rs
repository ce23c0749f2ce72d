//! TLS: to whom messages are given, and to whom not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use execwatch::config::{Remote, Tls};
use execwatch::output::Destination;

use super::support::servers::{Authority, Server, free_port, json_lines, rsyslog, wait_for_port};
use super::support::wait_until;
use super::{entry, flush, numbered, output, remote, write};

/// rsyslog with TLS, and those who can vouch for it and its clients, or cannot.
struct Listening {
    authority: Authority,
    stranger: Authority,
    /// The server's own certificate and key.
    own: (PathBuf, PathBuf),
    url: String,
    server: Server,
}

/// rsyslog with TLS, which asks for a client's certificate if `clients`.
fn listening(folder: &Path, clients: bool) -> Option<Listening> {
    let (authority, stranger) = (Authority::new(folder, "good")?, Authority::new(folder, "stranger")?);
    let own = authority.sign("server", "localhost");
    let port = free_port();
    let mode = if clients { "x509/certvalid" } else { "anon" };
    let text = format!(
        "global(workDirectory=\"{folder}\" defaultNetstreamDriverCAFile=\"{}\" \
         defaultNetstreamDriverCertFile=\"{}\" defaultNetstreamDriverKeyFile=\"{}\")\n\
         module(load=\"imtcp\" StreamDriver.Name=\"ossl\" StreamDriver.Mode=\"1\" StreamDriver.AuthMode=\"{mode}\")\n\
         input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")\n\
         template(name=\"j\" type=\"list\" option.jsonf=\"on\") {{ property(outname=\"msg\" name=\"msg\" format=\"jsonf\") }}\n\
         action(type=\"omfile\" file=\"{folder}/out.json\" template=\"j\")\n",
        authority.certificate().display(),
        own.0.display(),
        own.1.display(),
        folder = folder.display()
    );
    let server = rsyslog(folder, &text, true)?;
    wait_for_port(port);
    Some(Listening { authority, stranger, own, url: format!("tls://localhost:{port}"), server })
}

fn refused(settings: Remote, said: &str) {
    let mut output = output(settings);
    let record = entry(&output, &numbered(666));
    // What a client's missing certificate means is told after the handshake.
    let error = wait_until(said, || output.write(&record).and_then(|()| output.flush()).err());
    let mut text = error.to_string();
    if !text.contains(said) {
        text = wait_until(said, || {
            let error = output.write(&record).and_then(|()| output.flush()).err()?;
            error.to_string().contains(said).then_some(error)
        })
        .to_string();
    }
    assert!(text.contains("tls://localhost:"), "{text}");
}

#[test]
fn only_a_verified_server_is_given_anything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let Some(Listening { authority, stranger, url, server, .. }) = listening(path, false) else { return };
    let settings = |tls: Tls| Remote { tls, ..remote(&[&url]) };
    let trusting = |authority: &Authority| Tls { ca_file: Some(authority.certificate()), ..Tls::default() };

    refused(settings(trusting(&stranger)), "certificate is refused");
    // The system's authorities, or there are none.
    refused(settings(Tls::default()), "certificate");
    let other_name = Tls { server_name: Some("log.example.org".into()), ..trusting(&authority) };
    refused(settings(other_name), "certificate is refused");
    let none = Tls { ca_file: Some(path.join("none.pem")), ..Tls::default() };
    refused(settings(none), "cannot read");
    let no_pem = Tls { ca_file: Some(path.join("rsyslog.conf")), ..Tls::default() };
    refused(settings(no_pem), "no certificate in PEM");

    let mut good = output(settings(trusting(&authority)));
    (1..=3).for_each(|number| write(&mut good, &numbered(number)));
    flush(&mut good);
    let lines = wait_until("the messages", || {
        Some(json_lines(&path.join("out.json"))).filter(|lines| lines.len() >= 3)
    });
    drop(server);
    let text = format!("{lines:?}");
    assert!(text.contains("number-3.") && !text.contains("number-666"), "{text}");
    assert_eq!(lines.len(), 3);
}

#[test]
fn a_server_that_asks_for_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let Some(Listening { authority, stranger, own: (certificate, _), url, server }) = listening(path, true)
    else {
        return;
    };
    let settings = |client| {
        let tls = Tls { ca_file: Some(authority.certificate()), client, ..Tls::default() };
        Remote { tls, ..remote(&[&url]) }
    };
    refused(settings(None), "tls://");
    refused(settings(Some(stranger.sign("foreign", "web1"))), "tls://");
    let own = authority.sign("client", "web1");
    fs::set_permissions(&own.1, fs::Permissions::from_mode(0o644)).unwrap();
    refused(settings(Some(own.clone())), "chmod 0600");
    refused(settings(Some((certificate.clone(), own.1.clone()))), "chmod 0600");
    fs::set_permissions(&own.1, fs::Permissions::from_mode(0o600)).unwrap();
    refused(settings(Some((certificate.clone(), own.1.clone()))), "do not belong together");

    let mut good = output(settings(Some(own)));
    write(&mut good, &numbered(1));
    flush(&mut good);
    let lines = wait_until("the message", || {
        Some(json_lines(&path.join("out.json"))).filter(|lines| !lines.is_empty())
    });
    drop(server);
    let text = format!("{lines:?}");
    assert!(text.contains("number-1.") && !text.contains("number-666"), "{text}");
}
