//! The text form: one line of `key=value`, for syslog and for people with grep.
//!
//! A value that holds anything but letters, digits and a few marks is quoted. The line has a limit; where it is
//! exceeded, the longest values are cut in the middle, and `shortened` names them.

use super::escape::Escaped;
use super::origin::Origin;
use super::{Alert, Notice, Record, RecordId};
use crate::calendar;
use crate::process::details::Login;
use crate::process::exec::{Image, base_name};
use crate::process::parse::cgroup_paths;
use crate::response::{Outcome, Response};
use crate::rules::catalogue::script;
use crate::rules::model::Severity;
use crate::rules::subject::join;

/// Longest line in bytes: syslog servers of old cut at 1024, and the header needs some of it.
pub const LIMIT: usize = 960;
/// Values are not cut below this.
const SHORTEST: usize = 16;
const COMMAND_LINE: &str = "cmdline";
const LINEAGE: &str = "lineage";
/// Never cut: it would be another's.
const RECORD: &str = "record";

/// The date of a moment in seconds since 1970, in UTC.
pub(super) fn date(seconds: u64) -> String {
    calendar::rfc3339(seconds.saturating_mul(1_000_000_000)).get(..10).unwrap_or_default().to_owned()
}

/// A key and its value.
#[derive(Clone)]
struct Pair {
    key: &'static str,
    value: Escaped,
}

/// The line, without a newline. `id` is that of a record which the daemon sends.
pub fn line(record: &Record, id: Option<RecordId>) -> String {
    let mut pairs = Pairs::default();
    facts(record, id).iter().for_each(|(key, value)| pairs.add(key, value));
    pairs.fit();
    pairs.write()
}

/// The keys and values of the line, whole and as bytes: other forms are made of them too.
pub(crate) fn facts(record: &Record, id: Option<RecordId>) -> Vec<(&'static str, Vec<u8>)> {
    let mut facts = Facts::default();
    match record {
        Record::Alert(alert) => facts.alert(alert),
        Record::Notice(notice) => facts.notice(notice),
        Record::FollowUp(record) => facts.0 = record.pairs(),
        Record::Folded(record) => facts.0 = record.pairs(),
    }
    facts.add_known(RECORD, id.map(|id| id.to_string()));
    facts.0
}

#[derive(Default)]
struct Facts(Vec<(&'static str, Vec<u8>)>);

impl Facts {
    fn add(&mut self, key: &'static str, value: impl AsRef<[u8]>) {
        self.0.push((key, value.as_ref().to_vec()));
    }

    fn add_known(&mut self, key: &'static str, value: Option<impl AsRef<[u8]>>) {
        if let Some(value) = value {
            self.add(key, value);
        }
    }

    fn notice(&mut self, notice: &Notice) {
        self.add("severity", notice.severity.as_str());
        self.add("notice", notice.kind);
        self.add("message", &notice.message);
        self.add("time", calendar::rfc3339(notice.time_ns));
    }

    fn alert(&mut self, alert: &Alert) {
        let number = |number: Option<u32>| number.map(|number| number.to_string());
        let (exec, details) = (&alert.exec, &alert.exec.details);
        self.add("severity", alert.rule.severity.as_str());
        self.add("rule", &alert.rule.id);
        self.add("title", &alert.rule.title);
        if let Some(utility) = &alert.utility {
            self.add("utility", &utility.name);
            self.add("category", &utility.category);
            self.add("via", utility.via.as_str());
            if utility.disguised {
                self.add("disguised", "yes");
            }
            if let Some(identity) = &utility.identity {
                self.add("same-as", &identity.path);
                self.add("same-by", identity.by.as_str());
            }
        }
        self.add_known("incident", alert.incident.as_ref());
        self.response(alert);
        self.baseline(alert);
        self.add_known("user", alert.users[0].as_ref());
        self.add_known("uid", number(details.uid(0)));
        if details.uid(0) != details.uid(1) || alert.users[0] != alert.users[1] {
            self.add_known("euser", alert.users[1].as_ref());
            self.add_known("euid", number(details.uid(1)));
        }
        match details.login {
            Some(Login::User(loginuid)) => {
                self.add_known("login", alert.users[2].as_ref());
                self.add("loginuid", loginuid.to_string());
            }
            Some(Login::Somebody) => self.add_known("login", alert.users[2].as_ref()),
            Some(Login::Nobody) => self.add("login", "none"),
            None => {}
        }
        self.add_known("pid", number(Some(exec.pid).filter(|&pid| pid != 0)));
        self.add_known("exe", exec.image.exe());
        if exec.image.deleted() == Some(true) {
            self.add("exe-deleted", "yes");
        }
        self.add_known("sha256", alert.sha256.as_ref());
        self.add_known(COMMAND_LINE, exec.image.raw_arguments().map(join));
        if exec.image.cut() {
            self.add(
                "args-length",
                details.arguments_length.map_or("unknown".into(), |length| length.to_string()),
            );
        }
        self.add_known("cwd", details.cwd());
        match details.tty_name() {
            Some(Some(tty)) => self.add("tty", tty),
            Some(None) => self.add("tty", "none"),
            None => {}
        }
        self.add_known("session", number(details.session));
        self.add_known("ppid", number(details.ppid));
        self.add_known("parent", details.parent.exe());
        self.add_known("parent-cmdline", details.parent.raw_arguments().map(join));
        self.origin(alert);
        if !alert.namespaces.is_empty() {
            self.add("namespaces", alert.namespaces.join(","));
        }
        if !alert.attack.is_empty() {
            self.add("attack", alert.attack.join(","));
        }
        if alert.rules.len() > 1 {
            self.add("also", alert.rules[1..].join(","));
        }
        self.add("capture", exec.certainty.as_str());
        let unknown: Vec<&str> = alert.exec.details.unknown().collect();
        if !unknown.is_empty() {
            self.add("unknown", unknown.join(","));
        }
        self.add("time", calendar::rfc3339(alert.time_ns));
        self.add("id", &alert.id);
    }

    fn response(&mut self, alert: &Alert) {
        let Some(response) = alert.exec.response else { return };
        let Response { action, rule, outcome, .. } = response;
        self.add("response", action.as_str());
        if rule.as_str() != alert.rule.id {
            self.add("response-rule", rule.as_str());
        }
        self.add("outcome", outcome.as_str());
        self.add_known("certainty", response.certainty());
        self.add_known("after-us", outcome.after_us().map(|after| after.to_string()));
        match outcome {
            Outcome::Refused(guard) => self.add("kept-by", guard.as_str()),
            Outcome::TreeKilled { processes, spared, .. } => {
                self.add("processes", processes.to_string());
                self.add_known("spared", Some(spared.to_string()).filter(|_| spared > 0));
            }
            Outcome::Failed(number) => {
                self.add("error", std::io::Error::from_raw_os_error(number).to_string())
            }
            _ => {}
        }
    }

    fn baseline(&mut self, alert: &Alert) {
        let Some(standing) = alert.baseline else { return };
        self.add("baseline", standing.as_str());
        if let Some(past) = standing.past.filter(|past| past.count > 0) {
            self.add("baseline-days", past.days.to_string());
            self.add("baseline-count", past.count.to_string());
            self.add_known("baseline-since", past.since_s.map(date));
        }
        self.add_known("severity-was", standing.severity_was.map(Severity::as_str));
    }

    fn origin(&mut self, alert: &Alert) {
        let (origin, details) = (&alert.origin, &alert.exec.details);
        self.add_known("adopted-by", details.adopter.map(|pid| pid.to_string()));
        if origin.ancestors.len() > 1 || !origin.complete && !origin.ancestors.is_empty() {
            self.add(LINEAGE, lineage(origin));
        }
        self.add_known("entry", origin.entry);
        self.add_known("ssh-client", origin.ssh_client.map(|client| client.to_string()));
        if let Some(elevation) = &origin.elevation {
            self.add("elevation", elevation.program);
            self.add_known("elevated-from", elevation.user.as_ref());
            self.add_known("elevated-from-uid", elevation.uid.map(|uid| uid.to_string()));
        }
        if let Some(before) = origin.earlier.first().and_then(Image::raw_arguments) {
            self.add("before", join(before));
        }
        let place = &origin.place;
        self.add_known("container", place.container_id.as_ref());
        self.add_known("container-name", origin.container.name.as_ref());
        self.add_known("image", origin.container.image.as_ref());
        self.add_known("runtime", place.runtime);
        self.add_known("pod", place.pod_uid.as_ref());
        self.add_known("pod-name", origin.container.pod_name.as_ref());
        self.add_known("pod-namespace", origin.container.pod_namespace.as_ref());
        match &place.unit {
            // A container's scope only says the id once more.
            Some(unit) if place.container_id.as_ref().is_some_and(|id| unit.contains(id)) => {}
            Some(unit) => self.add("unit", unit),
            // A path says more than none.
            None => self.add_known("cgroup", details.cgroup().and_then(longest_cgroup)),
        }
    }
}

#[derive(Default)]
struct Pairs(Vec<Pair>);

impl Pairs {
    fn add(&mut self, key: &'static str, value: impl AsRef<[u8]>) {
        self.0.push(Pair { key, value: Escaped::new(value.as_ref()) });
    }

    /// Cuts the longest values until the line fits: all to the same length, but command line and lineage, which tell
    /// most, to twice of that.
    fn fit(&mut self) {
        if self.length() <= LIMIT {
            return;
        }
        let longest = self.0.iter().map(|pair| pair.value.as_str().len()).max().unwrap_or_default();
        let (mut fits, mut too_long) = (SHORTEST, longest);
        while fits + 1 < too_long {
            let middle = fits.midpoint(too_long);
            if self.cut_to(middle).length() <= LIMIT { fits = middle } else { too_long = middle }
        }
        *self = self.cut_to(fits);
    }

    /// With the values cut, and a last pair that names them.
    fn cut_to(&self, limit: usize) -> Pairs {
        let mut cut = Pairs(self.0.clone());
        let mut shortened = Vec::new();
        for pair in &mut cut.0 {
            let limit = if matches!(pair.key, COMMAND_LINE | LINEAGE) { limit * 2 } else { limit };
            if pair.key != RECORD && pair.value.shorten(limit) {
                shortened.push(pair.key);
            }
        }
        cut.add("shortened", shortened.join(","));
        cut
    }

    fn length(&self) -> usize {
        self.0.iter().map(|pair| pair.length() + 1).sum::<usize>().saturating_sub(1)
    }

    fn write(&self) -> String {
        let mut line = String::with_capacity(self.length());
        for pair in &self.0 {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(pair.key);
            line.push('=');
            if pair.bare() {
                line.push_str(pair.value.as_str());
            } else {
                line.push('"');
                line.push_str(pair.value.as_str());
                line.push('"');
            }
        }
        line
    }
}

impl Pair {
    fn length(&self) -> usize {
        self.key.len() + 1 + self.value.as_str().len() + if self.bare() { 0 } else { 2 }
    }

    /// Needs no quotation marks.
    fn bare(&self) -> bool {
        let mark = |byte: u8| matches!(byte, b'.' | b'_' | b'-' | b'/' | b':' | b'@' | b'%' | b'+' | b',');
        let value = self.value.as_str();
        !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || mark(byte))
    }
}

/// The ancestors up to the entry, the nearest first, by name: of an interpreter, with its script.
fn lineage(origin: &Origin) -> Vec<u8> {
    let mut chain = Vec::new();
    for ancestor in origin.up_to_entry() {
        if !chain.is_empty() {
            chain.extend(b" < ");
        }
        chain.extend(ancestor.image.name().unwrap_or(b"?"));
        if let Some(script) = script(&ancestor.image) {
            chain.push(b':');
            chain.extend(base_name(script));
        }
        chain.extend(format!("[{}]", ancestor.pid).bytes());
    }
    if origin.entry.is_none() && !origin.complete {
        chain.extend(b" < ...");
    }
    chain
}

/// The path that tells most: on hosts with several hierarchies most are `/` or alike.
fn longest_cgroup(cgroup: &[u8]) -> Option<&[u8]> {
    cgroup_paths(cgroup).max_by_key(|path| path.len()).filter(|path| *path != b"/")
}
