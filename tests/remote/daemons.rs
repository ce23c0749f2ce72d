//! rsyslogd and syslog-ng as receivers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use execwatch::alert::{Host, Notice, Record, RecordId};
use execwatch::config::{Format, Header, Protocol, Remote, Syslog, Tls};
use execwatch::output::Destination;
use execwatch::output::entry::Entry;
use execwatch::output::remote::RemoteOutput;
use execwatch::output::syslog::SyslogOutput;
use execwatch::rules::model::Severity;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::receiver::number;
use super::support::servers::{Authority, Server, free_port, json_lines, rsyslog, syslog_ng, wait_for_port};
use super::support::{Machine, alert_of, wait_until};
use super::{entry, flush, numbered, output, remote, write, write_all};

/// Ports and certificates of a server that listens in every way.
struct Place {
    folder: PathBuf,
    ports: [u16; 3],
    authority: Authority,
    certificate: PathBuf,
    key: PathBuf,
}

/// The daemons; both write what they have understood to `out.json`.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Rsyslog,
    SyslogNg,
}

impl Place {
    fn new(folder: &Path) -> Option<Self> {
        let authority = Authority::new(folder, "authority")?;
        let (certificate, key) = authority.sign("server", "localhost");
        let ports = [free_port(), free_port(), free_port()];
        Some(Place { folder: folder.to_owned(), ports, authority, certificate, key })
    }

    fn start(&self, kind: Kind) -> Option<Server> {
        let (folder, [udp, tcp, tls]) = (self.folder.display(), self.ports);
        let (certificate, key) = (self.certificate.display(), self.key.display());
        let authority = self.authority.certificate();
        let authority = authority.display();
        let server = match kind {
            Kind::Rsyslog => {
                let properties = [
                    ("pri", "pri"),
                    ("time", "timereported\" dateFormat=\"rfc3339"),
                    ("host", "hostname"),
                    ("app", "app-name"),
                    ("pid", "procid"),
                    ("msgid", "msgid"),
                    ("msg", "msg"),
                    ("all", "$!all-json"),
                ]
                .map(|(name, property)| {
                    format!("property(outname=\"{name}\" name=\"{property}\" format=\"jsonf\")")
                })
                .join(" ");
                let text = format!(
                    "global(workDirectory=\"{folder}\" defaultNetstreamDriverCAFile=\"{authority}\" \
                     defaultNetstreamDriverCertFile=\"{certificate}\" defaultNetstreamDriverKeyFile=\"{key}\")\n\
                     module(load=\"imuxsock\" SysSock.Use=\"off\") module(load=\"imudp\") module(load=\"imptcp\") module(load=\"mmpstrucdata\") module(load=\"mmjsonparse\")\n\
                     module(load=\"imtcp\" StreamDriver.Name=\"ossl\" StreamDriver.Mode=\"1\" StreamDriver.AuthMode=\"anon\")\n\
                     input(type=\"imuxsock\" Socket=\"{folder}/log\" UseSpecialParser=\"off\" ParseHostname=\"on\" \
                     RateLimit.Interval=\"0\")\n\
                     input(type=\"imudp\" address=\"127.0.0.1\" port=\"{udp}\")\n\
                     input(type=\"imptcp\" address=\"127.0.0.1\" port=\"{tcp}\")\n\
                     input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{tls}\")\n\
                     template(name=\"j\" type=\"list\" option.jsonf=\"on\") {{ {properties} }}\n\
                     action(type=\"mmjsonparse\") action(type=\"mmpstrucdata\")\n\
                     action(type=\"omfile\" file=\"{folder}/out.json\" template=\"j\")\n"
                );
                rsyslog(&self.folder, &text, true)?
            }
            Kind::SyslogNg => {
                let text = format!(
                    "@version: 3.38\noptions {{ keep-hostname(yes); flush-lines(1); }};\n\
                     source s {{\n\
                     unix-dgram(\"{folder}/log\" flags(syslog-protocol));\n\
                     syslog(ip(127.0.0.1) port({udp}) transport(\"udp\"));\n\
                     syslog(ip(127.0.0.1) port({tcp}) transport(\"tcp\"));\n\
                     syslog(ip(127.0.0.1) port({tls}) transport(\"tls\") tls(key-file(\"{key}\") \
                     cert-file(\"{certificate}\") peer-verify(optional-untrusted)));\n}};\n\
                     parser cee {{ json-parser(prefix(\".cee.\") marker(\"@cee:\")); }};\n\
                     template t {{ template(\"$(format-json pri=$PRI time=$ISODATE host=$HOST app=$PROGRAM pid=$PID \
                     msgid=$MSGID msg=$MSG cee_rule=${{.cee.rule.id}} --scope sdata)\\n\"); }};\n\
                     destination d {{ file(\"{folder}/out.json\" template(t)); }};\n\
                     log {{ source(s); if {{ parser(cee); }}; destination(d); }};\n"
                );
                syslog_ng(&self.folder, &text)?
            }
        };
        wait_for_port(tcp);
        wait_for_port(tls);
        Some(server)
    }

    /// UDP, TCP, TLS.
    fn urls(&self) -> [String; 3] {
        let [udp, tcp, tls] = self.ports;
        [format!("udp://127.0.0.1:{udp}"), format!("tcp://127.0.0.1:{tcp}"), format!("tls://localhost:{tls}")]
    }

    fn output(&self, url: &str, tag: &str) -> RemoteOutput {
        let tls = Tls { ca_file: Some(self.authority.certificate()), ..Tls::default() };
        let mut settings = Remote { tls, ..remote(&[url]) };
        settings.header.tag = tag.to_owned();
        output(settings)
    }

    fn records(&self) -> Vec<Value> {
        let mut records = json_lines(&self.folder.join("out.json"));
        for record in &mut records {
            // rsyslog writes its variables as text.
            if let Some(all) = record["all"].as_str() {
                record["all"] = serde_json::from_str(all).unwrap();
            }
        }
        records
    }
}

/// The parameters of execwatch's structured data, whichever daemon read them.
fn parameters(record: &Value) -> &Value {
    match record.get("_SDATA") {
        Some(data) => &data["execwatch@32473"],
        None => &record["all"]["rfc5424-sd"]["execwatch@32473"],
    }
}

/// The real daemon writes to rsyslog and to syslog-ng in every way and format, and they understand every part.
fn fields_are_understood(kind: Kind) {
    let Some(machine) = Machine::alone() else { return };
    let setup = machine.daemon();
    let Some(place) = Place::new(&setup.folder()) else { return };
    let Some(_server) = place.start(kind) else { return };
    let tables: String = place
        .urls()
        .iter()
        .flat_map(|url| ["text", "json", "cef", "cee"].map(|format| (url, format)))
        .map(|(url, format)| {
            let tls = match url.starts_with("tls") {
                true => format!("[output.remote.tls]\nca-file = \"{}\"\n", place.authority.certificate().display()),
                false => String::new(),
            };
            let name = format!("{}-{format}", &url[..3]);
            format!(
                "[[output.remote]]\nname = \"{name}\"\ntag = \"{name}\"\nservers = [\"{url}\"]\nformat = \"{format}\"\n\
                 facility = \"local2\"\n{tls}"
            )
        })
        .collect();
    let config = format!(
        "[rules]\nbuiltin = false\n[output.syslog]\nenabled = false\n[output.file]\npath = \"{{dir}}/alerts.json\"\n\
         [state]\nfolder = \"{{dir}}/state\"\n{tables}"
    );
    let daemon = setup.config(&config).start();
    let hostile =
        ["a]b\"c\\d=e|f", "line\n<13>1 - - forged - - -", "\u{1b}[2J\u{202e}caf\u{e9}", "@cee: {\"rule\":1}"];
    let program = daemon.program("to ol]\"\\=|");
    let alert = alert_of(&daemon, std::process::Command::new(&program).args(hostile));
    let id = alert["event"]["id"].as_str().unwrap();
    let records = wait_until("a record in each way and format", || {
        let records: Vec<Value> =
            place.records().into_iter().filter(|record| parameters(record)["id"] == id).collect();
        (records.len() >= 12).then_some(records)
    });
    let ended = daemon.stop();
    assert_eq!(records.len(), 12, "{records:#?}");
    let tags: BTreeSet<&str> = records.iter().map(|record| record["app"].as_str().unwrap()).collect();
    assert_eq!(tags.len(), 12);
    for record in &records {
        // Facility local2 is 18, severity low is notice (5).
        assert_eq!(record["pri"].to_string().trim_matches('"'), "149", "{record:#}");
        assert_eq!(record["msgid"], "alert");
        assert!(record["pid"].as_str().unwrap().parse::<u32>().is_ok());
        assert_eq!(record["host"], alert["host"]["name"]);
        let sent = alert["@timestamp"].as_str().unwrap();
        assert_eq!(record["time"].as_str().unwrap()[..19].len(), sent[..19].len());
        let parameters = parameters(record);
        assert_eq!(parameters["rule"], "own-programs");
        assert_eq!(parameters["exe"], program.to_str().unwrap(), "{record:#}");
        assert_eq!(parameters["uid"].to_string().trim_matches('"'), "0");
        let message = record["msg"].as_str().unwrap().trim_start();
        assert!(!message.contains(['\n', '\u{1b}', '\u{202e}']), "{message}");
        let (_, format) = record["app"].as_str().unwrap().split_once('-').unwrap();
        match format {
            "text" => assert!(message.starts_with("severity=low rule=own-programs "), "{message}"),
            "cef" => assert!(message.starts_with("CEF:0|execwatch|execwatch|"), "{message}"),
            "json" => {
                let json: Value = serde_json::from_str(message).unwrap();
                assert_eq!(json["process"]["args"][1], hostile[0]);
                assert_eq!(json["process"]["args"][2], hostile[1]);
            }
            _ if kind == Kind::Rsyslog => {
                assert_eq!(record["all"]["rule"]["id"], "own-programs", "{record:#}");
                assert_eq!(record["all"]["process"]["args"][1], hostile[0]);
            }
            _ => assert_eq!(record["cee_rule"], "own-programs", "{record:#}"),
        }
    }
    assert!(!ended.stderr.contains("failed"), "{}", ended.stderr);
}

#[test]
fn rsyslog_understands_every_way_and_format() {
    fields_are_understood(Kind::Rsyslog);
}

#[test]
fn syslog_ng_understands_every_way_and_format() {
    fields_are_understood(Kind::SyslogNg);
}

/// A local socket on which the server was told to expect RFC 5424.
fn a_local_socket(kind: Kind) {
    let folder = tempfile::tempdir().unwrap();
    let Some(place) = Place::new(folder.path()) else { return };
    let Some(_server) = place.start(kind) else { return };
    let mut header = Header::new(Protocol::Rfc5424);
    header.sd_id = "own@1.2".to_owned();
    let settings = Syslog { socket: folder.path().join("log"), header, ..Syslog::default() };
    let mut output = SyslogOutput::new(settings, "web1");
    let notice = Notice { kind: "a]b", severity: Severity::Low, time_ns: 0, message: "number-1.".to_owned() };
    let entry = Entry::new(
        &Record::Notice(notice),
        RecordId { run: 1, number: 1 },
        &[output.form()],
        &Host::default(),
    );
    output.write(&entry).unwrap();
    let record = wait_until("the message", || place.records().pop());
    let own = match record.get("_SDATA") {
        Some(data) => &data["own@1.2"],
        None => &record["all"]["rfc5424-sd"]["own@1.2"],
    };
    assert_eq!(own["notice"], "a]b", "{record:#}");
    assert_eq!((&record["app"], &record["msgid"]), (&"execwatch".into(), &"notice".into()), "{record:#}");
}

#[test]
fn rsyslog_reads_rfc_5424_on_a_local_socket() {
    a_local_socket(Kind::Rsyslog);
}

#[test]
fn syslog_ng_reads_rfc_5424_on_a_local_socket() {
    a_local_socket(Kind::SyslogNg);
}

/// Stopped with a full socket, continued, killed with unread messages, restarted, ended in order, restarted: every message
/// arrives at least once.
fn nothing_is_lost(kind: Kind) {
    let folder = tempfile::tempdir().unwrap();
    let Some(place) = Place::new(folder.path()) else { return };
    let Some(mut server) = place.start(kind) else { return };
    let [_, tcp, tls] = place.urls();
    let mut outputs = [place.output(&tcp, "tcp"), place.output(&tls, "tls")];
    let mut last = 0;
    let mut send = |outputs: &mut [RemoteOutput; 2], count: u32| {
        for output in outputs {
            write_all(output, last + 1..=last + count);
        }
        last += count;
    };
    let arrived = |tag: &str| -> BTreeSet<u32> {
        let records = place.records().into_iter().filter(|record| record["app"] == tag);
        records.map(|record| number(record["msg"].as_str().unwrap())).collect()
    };
    let wait_for = |what: &str, count: usize| {
        wait_until(what, || (arrived("tcp").len() == count && arrived("tls").len() == count).then_some(()));
    };
    send(&mut outputs, 100);
    // Stopped: its kernel takes what it has room for.
    server.signal(Signal::SIGSTOP);
    send(&mut outputs, 100);
    outputs.iter_mut().for_each(flush);
    server.signal(Signal::SIGCONT);
    send(&mut outputs, 100);
    outputs.iter_mut().for_each(flush);
    wait_for("the messages after a stop", 300);
    // Killed with what it has not read.
    server.signal(Signal::SIGSTOP);
    send(&mut outputs, 100);
    outputs.iter_mut().for_each(flush);
    drop(server);
    server = place.start(kind).unwrap();
    outputs.iter_mut().for_each(flush);
    wait_for("the messages after a kill", 400);
    // Ended in order, and away for a while.
    server.stop();
    let record = entry(&outputs[0], &numbered(401));
    wait_until("an error", || outputs[0].write(&record).err());
    let _server = place.start(kind).unwrap();
    send(&mut outputs, 100);
    outputs.iter_mut().for_each(flush);
    wait_for("the messages after an end", 500);
}

#[test]
fn rsyslog_stopped_killed_and_restarted() {
    nothing_is_lost(Kind::Rsyslog);
}

#[test]
fn syslog_ng_stopped_killed_and_restarted() {
    nothing_is_lost(Kind::SyslogNg);
}

/// Numbers that look random and are the same each time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Bits of what breaks parsers, in any order.
    fn text(&mut self) -> String {
        const BITS: [&str; 24] = [
            "\n",
            "\r\n",
            "\0",
            "\u{1b}[2J",
            "]",
            "\"",
            "\\",
            "=",
            "|",
            "<13>1 ",
            "123 ",
            "@cee: {",
            "} ",
            "%msg%",
            "$MSG",
            "\u{feff}",
            "\u{202e}",
            "\u{9b}",
            "[meta sequenceId=\"1\"]",
            "caf\u{e9}",
            "\u{1f600}",
            "'",
            "\t",
            "CEF:0|",
        ];
        let count = self.next() % 40;
        (0..count).map(|_| BITS[(self.next() % 24) as usize]).collect()
    }
}

/// Ten thousand hostile messages: each is one message on the other side too, with its parts where they belong.
fn hostile_messages(kind: Kind) {
    const MESSAGES: u32 = 10_000;
    let folder = tempfile::tempdir().unwrap();
    let Some(place) = Place::new(folder.path()) else { return };
    let Some(_server) = place.start(kind) else { return };
    let [_, tcp, _] = place.urls();
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut outputs = [Format::Text, Format::Json].map(|format| output(Remote { format, ..remote(&[&tcp]) }));
    for at in 1..=MESSAGES {
        write(&mut outputs[(at % 2) as usize], &format!("number-{at}. {}", noise.text()));
    }
    outputs.iter_mut().for_each(flush);
    wait_until("the messages", || (place.records().len() >= MESSAGES as usize).then_some(()));
    let records = place.records();
    assert_eq!(records.len(), MESSAGES as usize, "a message was split, or came twice");
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let texts: Vec<String> = (1..=MESSAGES).map(|at| format!("number-{at}. {}", noise.text())).collect();
    let mut seen = BTreeSet::new();
    for record in &records {
        assert_eq!(record["pri"].to_string().trim_matches('"'), "85", "{record:#}");
        assert_eq!(
            (&record["app"], &record["msgid"], &record["host"]),
            (&"execwatch".into(), &"notice".into(), &"web1".into())
        );
        assert_eq!(parameters(record)["notice"], "test", "{record:#}");
        let message = record["msg"].as_str().unwrap().trim_start();
        let at = number(message);
        seen.insert(at);
        if at % 2 == 1 {
            let json: Value = serde_json::from_str(message).unwrap();
            assert_eq!(json["message"], texts[at as usize - 1]);
        } else {
            assert!(message.starts_with("severity=low notice=test message="), "{message}");
        }
    }
    assert_eq!(seen.len(), MESSAGES as usize);
}

#[test]
fn ten_thousand_hostile_messages_to_rsyslog() {
    hostile_messages(Kind::Rsyslog);
}

#[test]
fn ten_thousand_hostile_messages_to_syslog_ng() {
    hostile_messages(Kind::SyslogNg);
}
