//! The daemon's own JSON alerts as events: as much of an exec as an alert holds.
//!
//! What alerts do not tell stays unknown: groups, capabilities, the environment, and what is not shown of ancestors.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::Deserialize;
use serde_json::Value;

use crate::alert::escape::of_json as bytes_of;
use crate::calendar;
use crate::event::{Absent, Bytes, Cgroup, Event, File, Moment, Namespaces, Process, SameAs, Terminal};
use crate::identity::By;
use crate::process::exec::Certainty;
use crate::process::relatives::Learnt;

/// The event of a line of JSON; `Some(Ok(None))` if it is another record of ours. `None` if it is no record in
/// the names of the Elastic Common Schema.
pub fn of_json(line: &[u8]) -> Option<Result<Option<Event>, String>> {
    let value: Value = serde_json::from_slice(line).ok()?;
    value.get("@timestamp")?;
    Some(match value.pointer("/event/dataset").and_then(Value::as_str) {
        Some("execwatch.alert") => of_alert(&value).map(Some),
        Some("execwatch.notice" | "execwatch.followup" | "execwatch.folded") => Ok(None),
        _ => {
            Err("JSON of another program: not an alert of execwatch, nor an event that it recorded"
                .to_owned())
        }
    })
}

/// A part of an alert.
#[derive(Clone, Copy)]
struct Part<'a>(&'a Value);

impl<'a> Part<'a> {
    fn get(self, path: &str) -> Option<&'a Value> {
        self.0.pointer(path)
    }

    fn text(self, path: &str) -> Option<&'a str> {
        self.get(path)?.as_str()
    }

    fn owned(self, path: &str) -> Option<String> {
        self.text(path).map(str::to_owned)
    }

    fn bytes(self, path: &str) -> Option<Bytes> {
        self.text(path).map(|text| Bytes::new(&bytes_of(text)))
    }

    fn list(self, path: &str) -> Option<Vec<Bytes>> {
        let list = self.get(path)?.as_array()?;
        Some(list.iter().filter_map(Value::as_str).map(|text| Bytes::new(&bytes_of(text))).collect())
    }

    fn number(self, path: &str) -> Option<u32> {
        u32::try_from(self.get(path)?.as_u64()?).ok()
    }

    fn flag(self, path: &str) -> Option<bool> {
        self.get(path)?.as_bool()
    }

    /// An id, which the schema writes as a string.
    fn id(self, path: &str) -> Option<u32> {
        self.text(path)?.parse().ok()
    }

    fn moment(self, path: &str) -> Option<Moment> {
        let (ns, _) = calendar::parse_rfc3339(self.text(path)?)?;
        // Alerts have their times in UTC; the zone of the host that wrote them is not told, and taken for this one's.
        Some(Moment::on_this_host(ns))
    }
}

fn of_alert(value: &Value) -> Result<Event, String> {
    let alert = Part(value);
    if alert.get("/process").is_none() {
        return Err("an alert without a process".to_owned());
    }
    let unlinked = alert.flag("/execwatch/exe_deleted") == Some(true)
        || alert.flag("/execwatch/exe_memfd") == Some(true);
    let exe = alert.text("/process/executable").map(|exe| {
        let mut exe = bytes_of(exe);
        if unlinked {
            exe.extend_from_slice(b" (deleted)");
        }
        Bytes::new(&exe)
    });
    let unknown = |what: &str| {
        let list = alert.get("/execwatch/unknown").and_then(Value::as_array);
        list.is_some_and(|list| list.iter().any(|word| word == what))
    };
    let pid = alert.number("/process/pid");
    let mut event = Event {
        time: time(alert, pid),
        host: alert.owned("/host/name").filter(|name| !name.is_empty()),
        exe,
        args: alert.list("/process/args"),
        args_cut: alert.get("/execwatch/args_cut").is_some(),
        args_length: alert.get("/execwatch/args_cut/length").and_then(Value::as_u64),
        comm: alert.bytes("/execwatch/comm"),
        cwd: alert.bytes("/process/working_directory"),
        tty: alert.text("/execwatch/tty").and_then(Terminal::of_name),
        pid,
        ppid: alert.number("/process/parent/pid"),
        user: alert.owned("/user/name"),
        uid: alert.id("/user/id"),
        suid: alert.number("/execwatch/saved_and_fs_ids/saved_uid"),
        fsuid: alert.number("/execwatch/saved_and_fs_ids/fs_uid"),
        gid: alert.id("/user/group/id"),
        egid: alert.number("/execwatch/saved_and_fs_ids/effective_gid"),
        sgid: alert.number("/execwatch/saved_and_fs_ids/saved_gid"),
        fsgid: alert.number("/execwatch/saved_and_fs_ids/fs_gid"),
        login_user: alert.owned("/execwatch/login/name"),
        loginuid: alert.id("/execwatch/login/id"),
        audit_session: alert.number("/execwatch/audit_session"),
        session: alert.number("/process/session_leader/pid").or((!unknown("session")).then_some(0)),
        umask: alert.text("/execwatch/umask").and_then(|octal| u32::from_str_radix(octal, 8).ok()),
        start: alert.moment("/process/start"),
        certainty: alert.text("/execwatch/capture/certainty").and_then(certainty),
        cpu: alert.number("/execwatch/capture/cpu"),
        hold_ns: alert
            .get("/execwatch/capture/hold_us")
            .and_then(Value::as_u64)
            .map(|us| us.saturating_mul(1000)),
        ..Event::default()
    };
    // Written only if it is not the real user.
    (event.euid, event.user_effective) = match alert.get("/user/effective") {
        Some(_) => (alert.id("/user/effective/id"), alert.owned("/user/effective/name")),
        None => (event.uid, event.user.clone()),
    };
    let mut absent = |what, is: bool| {
        if is {
            event.absent.insert(what);
        }
    };
    absent(Absent::Tty, alert.flag("/process/interactive") == Some(false));
    absent(Absent::Loginuid, alert.flag("/execwatch/logged_in") == Some(false));
    absent(Absent::User, event.uid.is_some() && event.user.is_none());
    absent(Absent::UserEffective, event.euid.is_some() && event.user_effective.is_none());
    absent(Absent::LoginUser, event.loginuid.is_some() && event.login_user.is_none());
    let parent = alert.get("/process/parent").map(|parent| process(Part(parent)));
    event.parent = parent.filter(|process| process.pid != Some(0));
    let processes = |path: &str| -> Vec<Process> {
        let list = alert.get(path).and_then(Value::as_array);
        list.into_iter().flatten().map(|one| process(Part(one))).collect()
    };
    event.ancestors = Some(processes("/execwatch/ancestors")).filter(|found| !found.is_empty());
    event.ancestors_complete = alert.flag("/execwatch/ancestors_complete") == Some(true);
    event.earlier = processes("/process/previous");
    event.adopter = alert.number("/execwatch/adopted_by");
    event.ssh_client = alert.text("/source/ip").and_then(|address| {
        let port = u16::try_from(alert.number("/source/port")?).ok()?;
        Some(SocketAddr::new(address.parse().ok()?, port))
    });
    event.exe_file = file(alert);
    event.identity_unknown = unknown("identity");
    if let Some(same) = alert.get("/execwatch/utility/same_as").map(Part)
        && let (Some(utility), Some(path)) = (alert.owned("/execwatch/utility/name"), same.bytes("/path"))
        && let Some(by) = same.text("/by").and_then(by)
    {
        let value = same.owned("/value").unwrap_or_default();
        let loaded = alert.text("/execwatch/utility/via") == Some("loader");
        event.same_as = Some(SameAs { utility, path, by, value, loaded });
    }
    if let Some(paths) = alert.list("/execwatch/cgroups") {
        let lines: Vec<Vec<u8>> = paths.iter().map(|path| [b"0::", path.as_ref()].concat()).collect();
        event.cgroup = Some(Cgroup::new(&lines.join(&b'\n')));
    }
    if let Some(namespaces) = alert.get("/execwatch/namespaces") {
        (event.namespace_id, event.namespace) = of_namespaces(namespaces);
    }
    Ok(event)
}

/// An ancestor, or what the process itself was before.
fn process(part: Part<'_>) -> Process {
    let uid = part.id("/user/id");
    let user = part.owned("/user/name");
    let absent = if uid.is_some() && user.is_none() { [Absent::User].into() } else { BTreeSet::new() };
    let exe = part.text("/executable").map(|exe| {
        let mut exe = bytes_of(exe);
        // That of memory is always unlinked.
        if exe.starts_with(b"/memfd:") {
            exe.extend_from_slice(b" (deleted)");
        }
        Bytes::new(&exe)
    });
    Process {
        exe,
        args: part.list("/args"),
        // Their number is told only of a whole list.
        args_cut: part.get("/args").is_some() && part.get("/args_count").is_none(),
        pid: part.number("/pid"),
        start: part.moment("/start"),
        uid,
        user,
        learnt: part.get("/learnt").and_then(|word| Learnt::deserialize(word).ok()).unwrap_or_default(),
        ended: part.flag("/ended") == Some(true),
        absent,
        ..Process::default()
    }
}

fn file(alert: Part<'_>) -> File {
    let mut file = File { sha256: alert.owned("/process/hash/sha256"), ..File::default() };
    let Some(part) = alert.get("/file").map(Part) else { return file };
    (file.uid, file.gid) = (part.id("/uid"), part.id("/gid"));
    let or_number = |name: Option<String>, id: Option<u32>| name.or_else(|| Some(id?.to_string()));
    file.owner = or_number(part.owned("/owner"), file.uid);
    file.group = or_number(part.owned("/group"), file.gid);
    file.size = part.get("/size").and_then(Value::as_u64);
    file.links = alert.number("/execwatch/exe_links");
    file.mode = part.text("/mode").and_then(|octal| u32::from_str_radix(octal, 8).ok());
    (file.modified, file.changed) = (part.moment("/mtime"), part.moment("/ctime"));
    file.inode = part.text("/inode").and_then(|inode| inode.parse().ok());
    file.device = alert.text("/execwatch/exe_device").and_then(|device| {
        let (major, minor) = device.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    file
}

fn by(word: &str) -> Option<By> {
    [By::Inode, By::BuildId, By::Content].into_iter().find(|known| known.as_str() == word)
}

/// The time is written to the microsecond, and the alert's id has it to the nanosecond.
fn time(alert: Part<'_>, pid: Option<u32>) -> Option<Moment> {
    let written = alert.moment("/@timestamp")?;
    let exact = alert.text("/event/id").and_then(|id| {
        let (time, number) = id.split_once('-')?;
        let same = u32::from_str_radix(number, 16).ok() == Some(pid.unwrap_or_default());
        u64::from_str_radix(time, 16).ok().filter(|&ns| same && ns / 1000 == written.ns / 1000)
    });
    Some(Moment { ns: exact.unwrap_or(written.ns), ..written })
}

fn certainty(word: &str) -> Option<Certainty> {
    use Certainty::{AlreadyRunning, BestEffort, Exact, Likely, Missed, Reported};
    [Exact, Likely, BestEffort, AlreadyRunning, Missed, Reported]
        .into_iter()
        .find(|known| known.as_str() == word)
}

/// Ids, and whether each is another than the host's: a list names those that are.
fn of_namespaces(namespaces: &Value) -> (Namespaces<u64>, Namespaces<bool>) {
    let (mut ids, mut differ) = <(Namespaces<u64>, Namespaces<bool>)>::default();
    let list = namespaces.get("not_the_hosts").and_then(Value::as_array);
    let kinds = [
        ("pid", &mut ids.pid, &mut differ.pid),
        ("mnt", &mut ids.mnt, &mut differ.mnt),
        ("net", &mut ids.net, &mut differ.net),
        ("user", &mut ids.user, &mut differ.user),
    ];
    for (kind, id, differs) in kinds {
        *id = namespaces.get(kind).and_then(Value::as_u64);
        let listed = list.is_some_and(|list| list.iter().any(|word| word == kind));
        *differs = (listed || id.is_some()).then_some(listed);
    }
    (ids, differ)
}
