//! What the JSON form consists of, in the order in which it is written.

use serde::Serialize;

/// Version of the schema whose names are used.
const ECS: &str = "8.17.0";

#[derive(Serialize)]
pub(super) struct Document<'a> {
    #[serde(rename = "@timestamp")]
    pub(super) timestamp: String,
    pub(super) message: &'a str,
    pub(super) ecs: Ecs,
    pub(super) event: Event<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rule: Option<Rule<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) threat: Option<Threat<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) process: Option<Process<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<File<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<User<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) container: Option<Container<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) orchestrator: Option<Orchestrator<'a>>,
    pub(super) host: HostPart<'a>,
    pub(super) agent: Agent,
    pub(super) execwatch: Own<'a>,
}

#[derive(Serialize)]
pub(crate) struct Ecs {
    pub(super) version: &'static str,
}

impl Ecs {
    /// The version whose names are used.
    pub(crate) const CURRENT: Ecs = Ecs { version: ECS };
}

#[derive(Serialize)]
pub(super) struct Event<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<&'a str>,
    pub(super) kind: &'static str,
    pub(super) category: [&'static str; 1],
    #[serde(rename = "type")]
    pub(super) kinds: [&'static str; 1],
    pub(super) action: &'static str,
    pub(super) module: &'static str,
    pub(super) dataset: &'static str,
    pub(super) severity: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sequence: Option<u64>,
}

#[derive(Serialize)]
pub(crate) struct Rule<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
}

#[derive(Serialize)]
pub(super) struct Threat<'a> {
    pub(super) framework: &'static str,
    pub(super) technique: Technique<'a>,
}

#[derive(Serialize)]
pub(super) struct Technique<'a> {
    pub(super) id: &'a [String],
}

#[derive(Serialize)]
pub(super) struct Process<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) start: Option<String>,
    #[serde(flatten)]
    pub(super) image: ImagePart,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hash: Option<Hash<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) working_directory: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) interactive: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tty: Option<Tty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session_leader: Option<Pid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) entry_leader: Option<Relative<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) previous: Vec<ImagePart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<Relative<'a>>,
}

#[derive(Serialize)]
pub(super) struct Hash<'a> {
    pub(super) sha256: &'a str,
}

/// The executable's file.
#[derive(Serialize)]
pub(super) struct File<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<String>,
    pub(super) inode: String,
    pub(super) mode: String,
    pub(super) size: u64,
    pub(super) uid: String,
    pub(super) gid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mtime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ctime: Option<String>,
}

#[derive(Serialize, Default)]
pub(crate) struct ImagePart {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) executable: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) args: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) args_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) command_line: Option<String>,
}

/// An ancestor. What ECS has no name for is `learnt` and `ended`.
#[derive(Serialize, Default)]
pub(super) struct Relative<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pid: Option<u32>,
    #[serde(flatten)]
    pub(super) image: ImagePart,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<Account<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) learnt: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ended: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) entry_meta: Option<EntryMeta>,
}

#[derive(Serialize)]
pub(super) struct EntryMeta {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<EntrySource>,
}

#[derive(Serialize)]
pub(super) struct EntrySource {
    pub(super) ip: String,
}

#[derive(Serialize)]
pub(super) struct Source {
    pub(super) ip: String,
    pub(super) port: u16,
}

#[derive(Serialize)]
pub(super) struct Container<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) runtime: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) image: Option<ImageName<'a>>,
}

#[derive(Serialize)]
pub(super) struct ImageName<'a> {
    pub(super) name: &'a str,
}

/// The pod.
#[derive(Serialize)]
pub(super) struct Orchestrator<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<&'a str>,
    pub(super) resource: Resource<'a>,
}

#[derive(Serialize)]
pub(super) struct Resource<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct Elevation<'a> {
    pub(super) program: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<Account<'a>>,
}

#[derive(Serialize)]
pub(super) struct Pid {
    pub(super) pid: u32,
}

#[derive(Serialize)]
pub(super) struct Tty {
    pub(super) char_device: Device,
}

#[derive(Serialize)]
pub(super) struct Device {
    pub(super) major: u32,
    pub(super) minor: u32,
}

#[derive(Serialize)]
pub(super) struct User<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<Group>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) effective: Option<Account<'a>>,
}

#[derive(Serialize)]
pub(super) struct Group {
    pub(super) id: String,
}

#[derive(Serialize, PartialEq)]
pub(super) struct Account<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
}

#[derive(Serialize)]
pub(crate) struct HostPart<'a> {
    pub(super) name: &'a str,
    pub(super) hostname: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) id: &'a str,
    pub(super) os: Os<'a>,
}

#[derive(Serialize)]
pub(super) struct Os<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) kernel: &'a str,
}

#[derive(Serialize)]
pub(crate) struct Agent {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) version: &'static str,
}

/// What ECS has no name for.
#[derive(Serialize)]
pub(super) struct Own<'a> {
    pub(super) severity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) record: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) notice: Option<&'static str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub(super) rules: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) utility: Option<Utility<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) incident: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response: Option<ResponsePart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) baseline: Option<Baseline>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) login: Option<Account<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) logged_in: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) audit_session: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) comm: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tty: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) umask: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) saved_and_fs_ids: Option<SavedIds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exe_deleted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exe_memfd: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exe_device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exe_links: Option<u32>,
    /// All that are known, the parent first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) ancestors: Vec<Relative<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ancestors_complete: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) adopted_by: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) entry: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) elevation: Option<Elevation<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) slice: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) cgroups: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespaces: Option<Namespaces<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) args_cut: Option<ArgsCut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) capture: Option<Capture>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) unknown: Vec<&'static str>,
}

#[derive(Serialize)]
pub(super) struct Utility<'a> {
    pub(super) name: &'a str,
    pub(super) category: &'a str,
    pub(super) via: &'static str,
    pub(super) disguised: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) same_as: Option<SameAs<'a>>,
}

/// Whether that is normal here.
#[derive(Serialize)]
pub(super) struct Baseline {
    pub(super) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first_seen: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) days: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) approved: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) severity_was: Option<&'static str>,
}

/// The installed file that was executed under another path, or of which a copy was.
#[derive(Serialize)]
pub(super) struct SameAs<'a> {
    pub(super) path: String,
    pub(super) by: &'static str,
    pub(super) value: &'a str,
}

/// ECS names only real and effective ids.
#[derive(Serialize, Default, PartialEq)]
pub(super) struct SavedIds {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) saved_uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fs_uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) effective_gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) saved_gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fs_gid: Option<u32>,
}

#[derive(Serialize)]
pub(super) struct Namespaces<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pid: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mnt: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) net: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<u64>,
    #[serde(skip_serializing_if = "<[&str]>::is_empty")]
    pub(super) not_the_hosts: &'a [&'static str],
}

#[derive(Serialize)]
pub(super) struct ArgsCut {
    pub(super) kept: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) length: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct Capture {
    pub(super) certainty: &'static str,
    pub(super) cpu: u32,
    pub(super) hold_us: u64,
}

/// What was done about the program.
#[derive(Serialize)]
pub(super) struct ResponsePart {
    pub(super) action: &'static str,
    pub(super) rule: String,
    pub(super) outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) certainty: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) after_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kept_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) processes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) spared: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) spared_by: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}
