//! The relays in packaging/, with the real daemons: exactly the shipped files, with ports, paths and names replaced.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::servers::{Authority, Server, free_port, json_lines, rsyslog, syslog_ng, wait_for_port};
use support::{Machine, alert_of, wait_until, within};

#[derive(Clone, Copy)]
enum Kind {
    Rsyslog,
    SyslogNg,
}

impl Kind {
    fn folder(self) -> &'static str {
        match self {
            Kind::Rsyslog => "rsyslog",
            Kind::SyslogNg => "syslog-ng",
        }
    }
}

/// What the shipped files speak of, here.
struct Place {
    folder: PathBuf,
    port: u16,
    server_certificate: (PathBuf, PathBuf),
    authority: PathBuf,
}

impl Place {
    fn new(folder: &Path) -> Option<Self> {
        let authority = Authority::new(folder, "authority")?;
        let server_certificate = authority.sign("server", "localhost");
        let authority = authority.certificate();
        Some(Place { folder: folder.to_owned(), port: free_port(), server_certificate, authority })
    }

    /// A shipped file with its places replaced; each must be spoken of by one of the files.
    fn shipped(&self, kind: Kind, name: &str, work: &Path) -> String {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(kind.folder()).join(name);
        let mut text = fs::read_to_string(&file).unwrap();
        let (certificate, key) = &self.server_certificate;
        for (shipped, here) in [
            ("6514", self.port.to_string().as_str()),
            ("log.example.org", "localhost"),
            ("/etc/execwatch/ca.pem", self.authority.to_str().unwrap()),
            ("/etc/execwatch/server.pem", certificate.to_str().unwrap()),
            ("/etc/execwatch/server.key", key.to_str().unwrap()),
            ("/var/log/execwatch", self.folder.join("logs").to_str().unwrap()),
            ("/var/spool/rsyslog", work.to_str().unwrap()),
            ("/var/lib/syslog-ng", work.to_str().unwrap()),
        ] {
            text = text.replace(shipped, here);
        }
        text
    }

    fn server(&self, kind: Kind) -> Option<Server> {
        let work = self.work("central");
        let text = self.shipped(kind, "server.conf", &work);
        let server = match kind {
            Kind::Rsyslog => rsyslog(&work, &text, true)?,
            Kind::SyslogNg => syslog_ng(&work, &format!("@version: 3.38\n{text}"))?,
        };
        wait_for_port(self.port);
        Some(server)
    }

    /// With what the distribution's own configuration has: a source for the local socket.
    fn client(&self, kind: Kind) -> Option<Server> {
        let (work, socket) = (self.work("host"), self.folder.join("log"));
        let (text, socket) = (self.shipped(kind, "client.conf", &work), socket.display());
        let server = match kind {
            Kind::Rsyslog => {
                let source = format!(
                    "module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
                     input(type=\"imuxsock\" Socket=\"{socket}\" RateLimit.Interval=\"0\")\n"
                );
                rsyslog(&work, &(source + &text), true)?
            }
            Kind::SyslogNg => {
                let source = format!("@version: 3.38\nsource s_src {{ unix-dgram(\"{socket}\"); }};\n");
                syslog_ng(&work, &(source + &text))?
            }
        };
        wait_until("the local socket", || self.folder.join("log").exists().then_some(()));
        Some(server)
    }

    fn work(&self, name: &str) -> PathBuf {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    }
}

/// execwatch, a relay on its host, and a central server, which is away for a while; and the server without a relay.
fn alerts_reach_the_central_server(kind: Kind) {
    let Some(machine) = Machine::alone() else { return };
    let setup = machine.daemon();
    let Some(place) = Place::new(&setup.folder()) else { return };
    let Some(server) = place.server(kind) else { return };
    let Some(_client) = place.client(kind) else { return };
    let config = format!(
        "[rules]\nbuiltin = false\n[output.syslog]\nsocket = \"{{dir}}/log\"\nformat = \"cee\"\n\
         [output.file]\npath = \"{{dir}}/alerts.json\"\n[state]\nfolder = \"{{dir}}/state\"\n\
         [[output.remote]]\nname = \"central\"\nservers = [\"tls://localhost:{}\"]\nformat = \"cee\"\n\
         [output.remote.tls]\nca-file = \"{}\"\n",
        place.port,
        place.authority.display()
    );
    let daemon = setup.config(&config).start();
    let program = daemon.program("tool");
    let run = |argument: &str| alert_of(&daemon, std::process::Command::new(&program).arg(argument));
    // Each host has a file of its own name.
    let arrived = |argument: &str| {
        let files = fs::read_dir(place.folder.join("logs")).into_iter().flatten().flatten();
        let files =
            files.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "json"));
        let records = files.flat_map(|file| json_lines(&file));
        records.filter(|record| record["process"]["args"][1] == argument).collect::<Vec<_>>()
    };
    let hostile = "a\nb]\"\\ <13>1 @cee: {} %msg% $MSG";
    let alert = run(hostile);
    let found =
        wait_until("the alert, on both ways", || Some(arrived(hostile)).filter(|found| found.len() >= 2));
    assert_eq!(found.len(), 2, "{found:#?}");
    for record in found {
        assert_eq!(record["event"]["id"], alert["event"]["id"]);
        assert_eq!(record["process"]["args"], alert["process"]["args"]);
        assert_eq!(record["rule"]["id"], "own-programs");
    }
    // Away, and back: execwatch's own connection loses nothing.
    server.stop();
    run("while-away");
    let _server = place.server(kind).unwrap();
    wait_until("the alert from execwatch", || (!arrived("while-away").is_empty()).then_some(()));
    // Both relays lose what they write into a connection that was just closed, and then go on.
    let goes_on = (0..20).any(|number| {
        let argument = format!("back-{number}");
        run(&argument);
        within(Duration::from_secs(2), || (arrived(&argument).len() >= 2).then_some(())).is_some()
    });
    assert!(goes_on, "the relay does not come back");
    daemon.stop();
}

#[test]
fn relay_with_rsyslog() {
    alerts_reach_the_central_server(Kind::Rsyslog);
}

#[test]
fn relay_with_syslog_ng() {
    alerts_reach_the_central_server(Kind::SyslogNg);
}
