//! The JSON form: names of the Elastic Common Schema where it has any, the rest under `execwatch`.

use serde::Serialize;

use super::known::Seen;
use super::record::{FollowUp, Occasion};
use super::sentence;
use crate::alert::ecs::{AGENT, Agent, Ecs, HostPart, ImagePart, Rule, host_part, image, severity};
use crate::alert::escape::{for_json, json_line};
use crate::alert::{Host, RecordId};
use crate::calendar;

/// The line, without a newline. `id` is that of a record which the daemon sends.
pub fn line(record: &FollowUp, id: Option<RecordId>, host: &Host) -> String {
    json_line(&Document::new(record, id, host))
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "@timestamp")]
    timestamp: String,
    message: String,
    ecs: Ecs,
    event: Event,
    rule: Rule<'a>,
    process: Process,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<Network>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<End>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<End>,
    host: HostPart<'a>,
    agent: Agent,
    execwatch: Own<'a>,
}

#[derive(Serialize)]
struct Event {
    id: String,
    kind: &'static str,
    category: &'static [&'static str],
    #[serde(rename = "type")]
    kinds: [&'static str; 1],
    action: &'static str,
    module: &'static str,
    dataset: &'static str,
    severity: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    /// Nanoseconds.
    duration: u64,
}

#[derive(Serialize)]
struct Process {
    pid: u32,
    #[serde(flatten)]
    image: ImagePart,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    io: Option<Io>,
}

#[derive(Serialize)]
struct Io {
    read_bytes: u64,
    written_bytes: u64,
    disk_read_bytes: u64,
    disk_written_bytes: u64,
}

#[derive(Serialize)]
struct Network {
    transport: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    direction: &'static str,
}

#[derive(Serialize)]
struct End {
    ip: String,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

/// What ECS has no name for.
#[derive(Serialize)]
struct Own<'a> {
    severity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<String>,
    alert_id: &'a str,
    followup: &'static str,
    number: u32,
    run_time_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_look_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sockets_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sockets: Vec<Socket>,
    #[serde(skip_serializing_if = "is_zero")]
    more_sockets: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    children: Vec<Child>,
    #[serde(skip_serializing_if = "is_zero")]
    more_children: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files_written: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    more_files_written: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    descriptors_cut: Option<bool>,
}

#[derive(Serialize)]
struct Socket {
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    local: Option<End>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<End>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received: Option<u64>,
    first_seen_ms: u64,
    last_seen_ms: u64,
    open: bool,
}

#[derive(Serialize)]
struct Child {
    pid: u32,
    #[serde(flatten)]
    image: ImagePart,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

const MS: u64 = 1_000_000;

impl<'a> Document<'a> {
    fn new(record: &'a FollowUp, id: Option<RecordId>, host: &'a Host) -> Self {
        let (alerted, known) = (&record.alerted, &record.known);
        let (network, source, destination) = connection(record);
        let ended = matches!(record.occasion, Occasion::Ended(_) | Occasion::EndUnseen);
        Document {
            timestamp: calendar::rfc3339(record.time_ns),
            message: sentence::of(record),
            ecs: Ecs::CURRENT,
            event: Event {
                id: record.id(),
                kind: "event",
                category: if network.is_some() { &["process", "network"] } else { &["process"] },
                kinds: [if ended { "end" } else { "info" }],
                action: "follow-up",
                module: "execwatch",
                dataset: "execwatch.followup",
                severity: severity(alerted.rule.severity),
                sequence: id.map(|id| id.number),
                duration: record.age_ns,
            },
            rule: Rule { id: &alerted.rule.id, name: &alerted.rule.title },
            process: Process {
                pid: alerted.pid,
                image: image(&alerted.image),
                exit_code: record.occasion.exit_code(),
                io: known.io.map(|io| Io {
                    read_bytes: io.read,
                    written_bytes: io.written,
                    disk_read_bytes: io.disk_read,
                    disk_written_bytes: io.disk_written,
                }),
            },
            network,
            source,
            destination,
            host: host_part(host),
            agent: AGENT,
            execwatch: Own {
                severity: alerted.rule.severity.as_str(),
                record: id.map(|id| id.to_string()),
                alert_id: &alerted.id,
                followup: record.occasion.as_str(),
                number: record.number,
                run_time_ms: record.age_ns / MS,
                signal: record.occasion.signal(),
                cpu_ms: known.cpu_ns.map(|ns| ns / MS),
                last_look_ms: known.looked_ns.map(|ns| ns / MS),
                sockets_by: known.source.map(super::look::Source::as_str),
                sockets: known.sockets.iter().map(socket).collect(),
                more_sockets: known.more_sockets,
                children: known
                    .children
                    .iter()
                    .map(|child| Child { pid: child.pid, image: image(&child.image) })
                    .collect(),
                more_children: known.more_children,
                files_written: known.files.iter().map(|file| for_json(file)).collect(),
                more_files_written: known.more_files,
                descriptors_cut: known.cut.then_some(true),
            },
        }
    }
}

fn end(address: std::net::SocketAddr, bytes: Option<u64>) -> End {
    End { ip: address.ip().to_string(), port: address.port(), bytes }
}

fn socket(seen: &Seen) -> Socket {
    let socket = &seen.socket;
    Socket {
        protocol: socket.protocol.as_str(),
        local: socket.local.map(|local| end(local, None)),
        remote: socket.remote.map(|remote| end(remote, None)),
        path: socket.path.as_ref().map(|path| for_json(path)),
        state: socket.state,
        sent: socket.sent.filter(|_| socket.remote.is_some()),
        received: socket.received.filter(|_| socket.remote.is_some()),
        first_seen_ms: seen.first_ns / MS,
        last_seen_ms: seen.last_ns / MS,
        open: seen.open,
    }
}

/// ECS has room for one connection: the one over which most went.
fn connection(record: &FollowUp) -> (Option<Network>, Option<End>, Option<End>) {
    let Some(connection) = record.connection() else { return (None, None, None) };
    let network = Network {
        transport: connection.transport,
        kind: if connection.source.is_ipv4() { "ipv4" } else { "ipv6" },
        direction: if connection.inbound { "ingress" } else { "egress" },
    };
    let source = end(connection.source, connection.bytes_out);
    let destination = end(connection.destination, connection.bytes_in);
    (Some(network), Some(source), Some(destination))
}
