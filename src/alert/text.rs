//! The text form: one line of `key=value`, for syslog and for people with grep.
//!
//! A value that holds anything but letters, digits and a few marks is quoted. The line has a limit; where it is
//! exceeded, the longest values are cut in the middle, and `shortened` names them.

use super::escape::Escaped;
use super::{Alert, Notice, Record, time};
use crate::process::details::Login;
use crate::process::parse::cgroup_paths;
use crate::rules::fields::join;

/// Longest line in bytes: syslog servers of old cut at 1024, and the header needs some of it.
pub const LIMIT: usize = 960;
/// Values are not cut below this.
const SHORTEST: usize = 32;

/// A key and its value.
struct Pair {
    key: &'static str,
    value: Escaped,
}

/// The line, without a newline.
pub fn line(record: &Record) -> String {
    let mut pairs = Pairs::default();
    match record {
        Record::Alert(alert) => pairs.alert(alert),
        Record::Notice(notice) => pairs.notice(notice),
    }
    pairs.fit();
    pairs.write()
}

#[derive(Default)]
struct Pairs(Vec<Pair>);

impl Pairs {
    fn add(&mut self, key: &'static str, value: impl AsRef<[u8]>) {
        self.0.push(Pair { key, value: Escaped::new(value.as_ref()) });
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
        self.add("time", time::rfc3339(notice.time_ns));
    }

    fn alert(&mut self, alert: &Alert) {
        let number = |number: Option<u32>| number.map(|number| number.to_string());
        let (exec, details) = (&alert.exec, &alert.exec.details);
        let uid = |index: usize| details.uids.map(|uids| uids[index]);
        self.add("severity", alert.rule.severity.as_str());
        self.add("rule", &alert.rule.id);
        self.add("title", &alert.rule.title);
        if let Some(utility) = &alert.utility {
            self.add("utility", &utility.name);
            self.add("category", &utility.category);
            self.add("via", utility.via.as_str());
        }
        self.add_known("user", alert.users[0].as_ref());
        self.add_known("uid", number(uid(0)));
        if uid(0) != uid(1) {
            self.add_known("euser", alert.users[1].as_ref());
            self.add_known("euid", number(uid(1)));
        }
        match details.login {
            Some(Login::User(loginuid)) => {
                self.add_known("login", alert.users[2].as_ref());
                self.add("loginuid", loginuid.to_string());
            }
            Some(Login::Nobody) => self.add("login", "none"),
            None => {}
        }
        self.add("pid", exec.pid.to_string());
        self.add_known("exe", exec.image.exe());
        if exec.image.deleted() == Some(true) {
            self.add("exe-deleted", "yes");
        }
        self.add_known("cmdline", exec.image.raw_arguments().map(join));
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
        if let Some(cgroup) = details.cgroup().and_then(longest_cgroup) {
            self.add("cgroup", cgroup);
        }
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
        self.add("time", time::rfc3339(alert.time_ns));
        self.add("id", &alert.id);
    }

    /// Cuts the longest values until the line fits.
    fn fit(&mut self) {
        let mut shortened: Vec<&'static str> = Vec::new();
        loop {
            let length = self.length() + shortened_pair(&shortened).map_or(0, |pair| pair.length() + 1);
            let Some(excess) = length.checked_sub(LIMIT).filter(|&excess| excess > 0) else { break };
            let longest = self.0.iter_mut().max_by_key(|pair| pair.value.as_str().len());
            let Some(pair) = longest.filter(|pair| pair.value.as_str().len() > SHORTEST) else { break };
            let key = pair.key;
            // The name in `shortened` takes room too.
            let wanted = pair.value.as_str().len().saturating_sub(excess + key.len() + 16);
            pair.value.shorten(wanted.max(SHORTEST));
            if !shortened.contains(&key) {
                shortened.push(key);
            }
        }
        self.0.extend(shortened_pair(&shortened));
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

fn shortened_pair(keys: &[&str]) -> Option<Pair> {
    (!keys.is_empty()).then(|| Pair { key: "shortened", value: Escaped::new(keys.join(",").as_bytes()) })
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

/// The path that tells most: on hosts with several hierarchies most are `/` or alike.
fn longest_cgroup(cgroup: &[u8]) -> Option<&[u8]> {
    cgroup_paths(cgroup).max_by_key(|path| path.len()).filter(|path| *path != b"/")
}
