//! The JSON form: names of the Elastic Common Schema where it has any, the rest under `execwatch`.

use serde::Serialize;

use super::record::Folded;
use crate::alert::ecs::{AGENT, Agent, Ecs, HostPart, Rule, host_part, severity};
use crate::alert::escape::{for_json, json_line};
use crate::alert::{Host, RecordId};
use crate::calendar;

/// The line, without a newline. `id` is that of a record which the daemon sends.
pub fn line(record: &Folded, id: Option<RecordId>, host: &Host) -> String {
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
    user: Option<User<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<Container<'a>>,
    host: HostPart<'a>,
    agent: Agent,
    execwatch: Own<'a>,
}

#[derive(Serialize)]
struct Event {
    id: String,
    kind: &'static str,
    category: [&'static str; 1],
    #[serde(rename = "type")]
    kinds: [&'static str; 1],
    action: &'static str,
    module: &'static str,
    dataset: &'static str,
    severity: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    start: String,
    end: String,
}

#[derive(Serialize)]
struct Process {
    #[serde(skip_serializing_if = "Option::is_none")]
    executable: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<Parent>,
}

#[derive(Serialize)]
struct Parent {
    executable: String,
}

#[derive(Serialize)]
struct User<'a> {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

#[derive(Serialize)]
struct Container<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

/// What ECS has no name for.
#[derive(Serialize)]
struct Own<'a> {
    severity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<String>,
    alert_id: &'a str,
    folded: &'static str,
    number: u32,
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
    command_lines: Vec<String>,
    more_command_lines: bool,
}

impl<'a> Document<'a> {
    fn new(record: &'a Folded, id: Option<RecordId>, host: &'a Host) -> Self {
        let container_id = record.container_id.as_deref();
        Document {
            timestamp: calendar::rfc3339(record.last_ns),
            message: record.sentence(),
            ecs: Ecs::CURRENT,
            event: Event {
                id: record.id(),
                kind: "event",
                category: ["process"],
                kinds: ["info"],
                action: record.why.as_str(),
                module: "execwatch",
                dataset: "execwatch.folded",
                severity: severity(record.rule.severity),
                sequence: id.map(|id| id.number),
                start: calendar::rfc3339(record.first_ns),
                end: calendar::rfc3339(record.last_ns),
            },
            rule: Rule { id: &record.rule.id, name: &record.rule.title },
            process: Process {
                executable: record.exe.as_deref().map(for_json),
                parent: record.parent_exe.as_deref().map(|exe| Parent { executable: for_json(exe) }),
            },
            user: record.uid.map(|uid| User { id: uid.to_string(), name: record.user.as_deref() }),
            container: container_id.map(|id| Container { id, name: record.container.as_deref() }),
            host: host_part(host),
            agent: AGENT,
            execwatch: Own {
                severity: record.rule.severity.as_str(),
                record: id.map(|id| id.to_string()),
                alert_id: &record.alert_id,
                folded: record.why.as_str(),
                number: record.number,
                count: record.count,
                unit: record.unit.as_deref(),
                command_lines: record.samples.iter().map(|sample| for_json(sample)).collect(),
                more_command_lines: record.more_samples,
            },
        }
    }
}
