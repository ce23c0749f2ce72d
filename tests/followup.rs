//! What is told of a program after its alert: real programs, sockets and namespaces on the real kernel.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::io::Write;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use execwatch::followup::look::{Looker, Who};
use execwatch::followup::sockets::Protocol;
use execwatch::process::proc_dir::ProcRoot;
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket};
use serde_json::Value;
use support::{Daemon, Machine, Setup, Staying, alert_of, installed, program};

const RULE: &str = r#"
[[rule]]
id = "own-programs"
title = "A program of this test"
severity = "high"
[rule.select.program]
"exe|startswith" = "{dir}/bin/"
"#;

/// So many that each change is told soon.
const MOMENTS: &str = "after = ['50ms', '200ms', '500ms', '1s', '2s', '3s', '4s', '6s', '8s', '12s', '16s']";

fn setup<'m>(machine: &'m Machine, follow: &str) -> Setup<'m> {
    machine.daemon().rules(RULE).config(&format!(
        "[rules]\nbuiltin = false\n[output.syslog]\nenabled = false\n\
         [output.file]\npath = \"{{dir}}/alerts.json\"\n[follow]\n{follow}\n"
    ))
}

/// A copy of an installed program in the folder that the rule is about.
fn copy(daemon: &Daemon<'_>, of: &str, name: &str) -> Option<PathBuf> {
    let path = daemon.folder().join("bin").join(name);
    program::copy(&installed(of)?.canonicalize().unwrap(), &path);
    Some(path)
}

/// A child that is killed when a test fails.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Running(command.spawn().unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    fn close_input(&mut self) {
        self.0.stdin = None;
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_follow_up_of(record: &Value, pid: u32) -> bool {
    record["event"]["action"] == "follow-up" && record["process"]["pid"] == pid
}

/// A socket in a record of this process that `wanted` picks.
fn wait_for_socket(daemon: &Daemon<'_>, pid: u32, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let sockets = |record: &Value| record["execwatch"]["sockets"].as_array().cloned().unwrap_or_default();
    daemon.wait_for_record(what, |record| is_follow_up_of(record, pid) && sockets(record).iter().any(&wanted))
}

/// The last record of a process, tied to its alert.
fn wait_for_end(daemon: &Daemon<'_>, pid: u32) -> Value {
    let alert = daemon.wait_for(|alert| alert["process"]["pid"] == pid);
    let end = daemon.wait_for_record("the end", |record| {
        is_follow_up_of(record, pid) && record["execwatch"]["followup"] == "ended"
    });
    assert_eq!(end["execwatch"]["alert_id"], alert["event"]["id"]);
    assert_ne!(end["event"]["id"], alert["event"]["id"]);
    assert_eq!((&end["event"]["kind"], &end["rule"]["id"]), (&"event".into(), &"own-programs".into()));
    end
}

fn free_tcp_port(ip: IpAddr) -> Option<u16> {
    TcpListener::bind((ip, 0)).and_then(|socket| socket.local_addr()).map(|address| address.port()).ok()
}

/// Two netcats over loopback.
fn connection(machine: &Machine, ip: IpAddr, option: &str) {
    const SENT: usize = 300_000;
    let Some(port) = free_tcp_port(ip) else { return support::skip("needs IPv6 on loopback") };
    let daemon = setup(machine, MOMENTS).start();
    let Some(nc) = copy(&daemon, "nc", "nc") else { return };
    let address = [ip.to_string(), port.to_string()];
    let mut server = Running::start(Command::new(&nc).arg(option).arg("-l").args(&address));
    wait_for_socket(&daemon, server.pid(), "listening", |socket| {
        socket["state"] == "listen" && socket["local"]["port"] == port
    });
    let mut client = Running::start(Command::new(&nc).arg(option).arg("-N").args(&address));
    client.write(&vec![b'x'; SENT]);
    let enough = |socket: &Value, key: &str| socket[key].as_u64().is_some_and(|bytes| bytes >= SENT as u64);
    let record = wait_for_socket(&daemon, client.pid(), "the client's end", |socket| {
        socket["remote"]["port"] == port && socket["state"] == "established" && enough(socket, "sent")
    });
    assert_eq!(record["execwatch"]["followup"], "running");
    assert_eq!(record["execwatch"]["sockets_by"], "sock-diag");
    assert_eq!(record["destination"]["ip"], ip.to_string());
    assert_eq!(record["network"]["direction"], "egress");
    let record = wait_for_socket(&daemon, server.pid(), "the server's end", |socket| {
        socket["local"]["port"] == port && enough(socket, "received")
    });
    assert_eq!(record["network"]["direction"], "ingress");
    assert_eq!(record["network"]["transport"], "tcp");
    assert_eq!(record["source"]["ip"], ip.to_string());
    client.close_input();
    server.close_input();
    for (process, word) in [(&mut client, "connected to"), (&mut server, "connected from")] {
        assert!(process.0.wait().unwrap().success());
        let end = wait_for_end(&daemon, process.pid());
        assert_eq!(end["process"]["exit_code"], 0);
        let message = end["message"].as_str().unwrap();
        assert!(message.contains(word) && message.ends_with("exit 0"), "{message}");
        assert!(end["process"]["io"]["written_bytes"].as_u64().unwrap() >= SENT as u64, "{end:#}");
    }
    daemon.stop();
}

#[test]
fn both_ends_of_a_connection() {
    let Some(machine) = Machine::shared() else { return };
    connection(&machine, "127.0.0.1".parse().unwrap(), "-4");
}

#[test]
fn both_ends_of_a_connection_over_ipv6() {
    let Some(machine) = Machine::shared() else { return };
    connection(&machine, "::1".parse().unwrap(), "-6");
}

#[test]
fn udp_and_a_signal() {
    let Some(machine) = Machine::shared() else { return };
    let daemon = setup(&machine, MOMENTS).start();
    let Some(nc) = copy(&daemon, "nc", "nc") else { return };
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = peer.local_addr().unwrap().port();
    let mut client = Running::start(Command::new(&nc).args(["-u", "127.0.0.1", &port.to_string()]));
    client.write(b"hello\n");
    wait_for_socket(&daemon, client.pid(), "UDP", |socket| {
        socket["protocol"] == "udp" && socket["remote"]["port"] == port && socket["state"] == "connected"
    });
    client.kill();
    let end = wait_for_end(&daemon, client.pid());
    assert_eq!(end["execwatch"]["signal"], "SIGKILL");
    assert!(end["process"]["exit_code"].is_null());
    assert!(end["message"].as_str().unwrap().contains("killed by SIGKILL"), "{end:#}");
    daemon.stop();
}

#[test]
fn in_a_network_namespace_of_its_own() {
    let Some(machine) = Machine::shared() else { return };
    let (Some(unshare), Some(_)) = (installed("unshare"), installed("ip")) else { return };
    let daemon = setup(&machine, MOMENTS).start();
    let Some(nc) = copy(&daemon, "nc", "nc") else { return };
    let script = format!("ip link set lo up && exec {} -l 127.0.0.1 4444", nc.display());
    let mut server = Running::start(Command::new(unshare).args(["-n", "sh", "-c", &script]));
    let record = wait_for_socket(&daemon, server.pid(), "listening", |socket| {
        socket["state"] == "listen" && socket["local"]["ip"] == "127.0.0.1" && socket["local"]["port"] == 4444
    });
    assert_eq!(record["execwatch"]["sockets_by"], "proc");
    server.kill();
    wait_for_end(&daemon, server.pid());
    daemon.stop();
}

#[test]
fn children_and_a_file_being_written() {
    let Some(machine) = Machine::shared() else { return };
    let daemon = setup(&machine, MOMENTS).start();
    let Some(shell) = copy(&daemon, "dash", "shell") else { return };
    let written = daemon.folder().join("written");
    let script = format!("exec 3>{}; id -u >&3; read line; exit 7", written.display());
    let mut process = Running::start(Command::new(shell).args(["-c", &script]));
    let list = |record: &Value, key: &str| record["execwatch"][key].as_array().cloned().unwrap_or_default();
    let record = daemon.wait_for_record("the child and the file", |record| {
        is_follow_up_of(record, process.pid())
            && list(record, "children").iter().any(|child| child["args"] == serde_json::json!(["id", "-u"]))
            && list(record, "files_written").iter().any(|file| *file == written.to_str().unwrap())
    });
    assert_eq!(record["execwatch"]["followup"], "running");
    process.close_input();
    assert_eq!(process.0.wait().unwrap().code(), Some(7));
    let end = wait_for_end(&daemon, process.pid());
    assert_eq!(end["process"]["exit_code"], 7);
    assert_eq!(list(&end, "children").len(), 1, "{end:#}");
    assert!(end["execwatch"]["cpu_ms"].is_u64() && end["execwatch"]["run_time_ms"].as_u64() > Some(0));
    daemon.stop();
}

/// Its end comes before anybody could look, and is told all the same.
#[test]
fn one_that_ends_at_once() {
    let Some(machine) = Machine::alone() else { return };
    let daemon = setup(&machine, "").start();
    let alert = alert_of(&daemon, &mut Command::new(daemon.tiny("brief")));
    let end = wait_for_end(&daemon, alert["process"]["pid"].as_u64().unwrap() as u32);
    assert_eq!(end["process"]["exit_code"], 0);
    assert_eq!(end["execwatch"]["number"], 1);
    daemon.stop();
}

/// What ended before the daemon does is told before it does.
#[test]
fn the_end_of_the_daemon() {
    let Some(machine) = Machine::alone() else { return };
    let daemon = setup(&machine, "").start();
    let mut child = Command::new(daemon.program("brief")).spawn().unwrap();
    child.wait().unwrap();
    let ended = daemon.stop();
    let told: Vec<_> = ended.records.iter().filter(|record| is_follow_up_of(record, child.id())).collect();
    assert_eq!(told.len(), 1, "{:#?}", ended.records);
    assert_eq!(ended.totals.get("follow-ups"), 1);
}

#[test]
fn no_more_than_the_limit() {
    let Some(machine) = Machine::alone() else { return };
    let daemon = setup(&machine, "at-once = 1\nafter = ['1h']").start();
    let staying = Staying::start(&daemon.folder().join("bin/staying"));
    daemon.wait_for(|alert| alert["process"]["pid"] == staying.pid());
    let mut child = Command::new(daemon.program("brief")).spawn().unwrap();
    child.wait().unwrap();
    daemon.wait_for_totals("the one refused", |totals| totals.get("not-followed") == 1);
    drop(staying);
    let ended = daemon.stop();
    assert!(!ended.records.iter().any(|record| is_follow_up_of(record, child.id())));
    let notice = |record: &&Value| record["event"]["action"] == "loss";
    let notice = ended.records.iter().find(notice).expect("a notice says so");
    assert!(
        notice["message"]
            .as_str()
            .unwrap()
            .contains("1 alerted program was not followed because [follow] at-once others were")
    );
}

#[test]
fn the_oldest_makes_room() {
    let Some(machine) = Machine::alone() else { return };
    let daemon = setup(&machine, "at-once = 1\nafter = ['1ms']").start();
    let staying = Staying::start(&daemon.folder().join("bin/staying"));
    daemon.wait_for(|alert| alert["process"]["pid"] == staying.pid());
    let mut child = Command::new(daemon.program("brief")).spawn().unwrap();
    child.wait().unwrap();
    wait_for_end(&daemon, child.id());
    daemon.wait_for_record("letting go", |record| {
        is_follow_up_of(record, staying.pid()) && record["execwatch"]["followup"] == "let-go"
    });
    let ended = daemon.stop();
    assert_eq!((ended.totals.get("let-go"), ended.totals.get("not-followed")), (1, 0));
}

#[test]
fn switched_off_or_not_severe_enough() {
    let Some(machine) = Machine::alone() else { return };
    for follow in ["enabled = false", "severity = 'critical'"] {
        let daemon = setup(&machine, follow).start();
        let name = |pid: nix::unistd::Pid| {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
            let comm = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap();
            tasks.map(|task| comm(task.unwrap())).any(|comm| comm.trim() == "follow-up")
        };
        let runs = name(nix::unistd::Pid::from_raw(daemon.pid().cast_signed()));
        assert_eq!(runs, follow != "enabled = false");
        let mut child = Command::new(daemon.program("brief")).spawn().unwrap();
        child.wait().unwrap();
        daemon.wait_for(|alert| alert["process"]["pid"] == child.id());
        let ended = daemon.stop();
        assert!(!ended.records.iter().any(|record| record["event"]["action"] == "follow-up"));
        assert_eq!((ended.totals.get("follow-ups"), ended.totals.get("not-followed")), (0, 0));
    }
}

/// Sockets without addresses are named by their kind.
#[test]
fn kinds_of_sockets() {
    let Some(_machine) = Machine::shared() else { return };
    let new = |family, kind, protocol| socket(family, kind, SockFlag::SOCK_CLOEXEC, protocol).unwrap();
    let _held = [
        new(AddressFamily::Packet, SockType::Raw, None),
        new(AddressFamily::Inet, SockType::Raw, Some(SockProtocol::Icmp)),
        new(AddressFamily::Unix, SockType::Datagram, None),
    ];
    // One that is not bound is in no table.
    let netlink = new(AddressFamily::Netlink, SockType::Raw, None);
    bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, 0)).unwrap();
    let looker = Looker::new(Arc::new(ProcRoot::open(Path::new("/proc")).unwrap()));
    let look = looker.look(&[Who { pid: std::process::id(), start_ticks: None }]).remove(0).unwrap();
    for protocol in [Protocol::Packet, Protocol::Raw, Protocol::Netlink, Protocol::Unix] {
        assert!(look.sockets.iter().any(|socket| socket.protocol == protocol), "{protocol:?}: {look:#?}");
    }
}
