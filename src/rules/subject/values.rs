//! How each field is read from a subject.

use std::borrow::Cow;

use super::{Person, Subject, Whole};
use crate::baseline::decision::Knowledge;
use crate::process::details::{Login, known_id};
use crate::process::exec::Image;
use crate::process::names::{Name, OwnNames};
use crate::process::parse::tty_name;
use crate::process::place::Place;
use crate::process::relatives::Relative;
use crate::rules::arguments;
use crate::rules::catalogue::{self, Recognised, Utility};
use crate::rules::fields::{Attribute, Field, Role};
use crate::rules::file_fields::of_file;
use crate::rules::value::Value;

impl<'a> Subject<'a> {
    fn relative_user(&self, relative: &Relative) -> Value<'static> {
        let own = relative.names.as_deref();
        self.user(own.map(|own| &own.user), known_id(relative.uids, 0))
    }

    /// The argument list of a process was cut.
    pub fn cut_arguments(&self, person: Person<'_>) -> bool {
        match person {
            Person::Own => self.image.cut(),
            Person::Parent => self.whole.as_ref().is_some_and(|whole| whole.exec.details.parent.cut()),
            Person::Relative(relative) => relative.image.cut(),
            Person::Nobody | Person::Missing => false,
        }
    }

    /// Some of what a field of a process holds was cut off.
    pub fn cut(&self, person: Person<'_>, field: &Field) -> bool {
        match field.info.attribute {
            Attribute::Environment => {
                self.whole.as_ref().is_some_and(|whole| whole.exec.details.environment_cut())
            }
            attribute => attribute.of_arguments() && self.cut_arguments(person),
        }
    }

    /// Reads a field. Of any ancestor's there is no one value.
    pub fn value(&self, field: &Field) -> Value<'_> {
        self.value_of(self.person(field.role), field)
    }

    /// A field's value for people; of any ancestor's, all of them.
    pub fn display(&self, field: &Field) -> Vec<u8> {
        if field.role != Role::Ancestor {
            return self.value(field).display().into_owned();
        }
        let ancestors = self.ancestors();
        let values = ancestors
            .processes
            .iter()
            .map(|ancestor| self.value_of(Person::Relative(ancestor), field).display().into_owned());
        let mut shown: Vec<Vec<u8>> = values.collect();
        if !ancestors.complete {
            shown.push(b"unknown".to_vec());
        }
        shown.join(&b", "[..])
    }

    /// Reads a field of a process, whatever the field's own role.
    pub fn value_of<'v>(&'v self, person: Person<'v>, field: &Field) -> Value<'v> {
        let attribute = field.info.attribute;
        match person {
            Person::Own => self.own(attribute, field.argument.as_deref()),
            Person::Parent => self.parent(attribute),
            Person::Relative(relative) => self.relative(attribute, relative),
            Person::Nobody => Value::Absent,
            Person::Missing => Value::Unknown,
        }
    }

    fn parent(&self, attribute: Attribute) -> Value<'_> {
        let Some(whole) = &self.whole else { return Value::Unknown };
        if let Some(value) = of_image(attribute, &whole.exec.details.parent)
            && !matches!(value, Value::Unknown)
        {
            return value;
        }
        match (attribute, self.ancestor(0)) {
            (Attribute::Pid, _) => Value::number(whole.exec.details.ppid),
            (_, Person::Relative(parent)) => self.relative(attribute, parent),
            _ => Value::Unknown,
        }
    }

    fn relative<'v>(&'v self, attribute: Attribute, relative: &'v Relative) -> Value<'v> {
        if let Some(value) = of_image(attribute, &relative.image) {
            return value;
        }
        match attribute {
            Attribute::Pid => Value::number(Some(relative.pid).filter(|&pid| pid != 0)),
            Attribute::Ppid => Value::number(relative.ppid),
            Attribute::Vpid => Value::number(relative.vpid),
            Attribute::Start => self.start(relative.start_ticks),
            Attribute::Age => self.age(relative.start_ticks),
            Attribute::Cgroup => relative.cgroup.as_deref().map_or(Value::Unknown, Value::Cgroups),
            Attribute::ContainerId => Value::optional(relative.place().map(|it| it.container_id.map(owned))),
            Attribute::ContainerRuntime => Value::optional(
                relative.place().map(|it| it.runtime.map(|text| Cow::Borrowed(text.as_bytes()))),
            ),
            Attribute::PodUid => Value::optional(relative.place().map(|it| it.pod_uid.map(owned))),
            Attribute::Slice => Value::optional(relative.place().map(|it| it.slice.map(owned))),
            Attribute::Unit => Value::optional(relative.place().map(|it| it.unit.map(owned))),
            Attribute::Comm => Value::text(relative.comm.as_deref()),
            Attribute::CmdlineComm => command_line(relative.comm.as_deref(), &relative.image),
            Attribute::Cwd => Value::text(relative.cwd.as_deref()),
            Attribute::Tty => terminal(relative.tty),
            Attribute::Interactive => Value::flag(relative.tty.map(|device| device != 0)),
            _ => self.account(attribute, relative.uids, relative.gids, relative.names.as_deref()),
        }
    }

    /// Fields of user and group.
    fn account(
        &self,
        attribute: Attribute,
        uids: Option<[u32; 4]>,
        gids: Option<[u32; 4]>,
        own: Option<&OwnNames>,
    ) -> Value<'static> {
        let uid = |which| known_id(uids, which);
        let gid = |which| known_id(gids, which);
        match attribute {
            Attribute::User => self.user(own.map(|own| &own.user), uid(0)),
            Attribute::Uid => Value::number(uid(0)),
            Attribute::UserEffective => self.user(own.map(|own| &own.effective), uid(1)),
            Attribute::Euid => Value::number(uid(1)),
            Attribute::Gid => Value::number(gid(0)),
            Attribute::Egid => Value::number(gid(1)),
            Attribute::Group => self.group(own.map(|own| &own.group), gid(0)),
            // Who brings names along has none for it.
            Attribute::GroupEffective => self.group(own.map(|_| &Name::Unknown), gid(1)),
            _ => Value::Unknown,
        }
    }

    fn group(&self, own: Option<&Name>, gid: Option<u32>) -> Value<'static> {
        match &self.whole {
            Some(whole) => name_value(whole.surroundings.accounts.groups.of(own, gid)),
            None => Value::Unknown,
        }
    }

    /// A start time in seconds since 1970.
    fn start(&self, ticks: Option<u64>) -> Value<'static> {
        let Some((whole, ticks)) = self.whole.as_ref().zip(ticks) else { return Value::Unknown };
        Value::Number((whole.clock.wall_from_start_ticks(ticks) / 1_000_000_000) as i64)
    }

    /// Seconds from a start time to the exec.
    fn age(&self, ticks: Option<u64>) -> Value<'static> {
        let Some((whole, ticks)) = self.whole.as_ref().zip(ticks) else { return Value::Unknown };
        if whole.local().is_none() {
            // An event that does not tell its time.
            return Value::Unknown;
        }
        let age = whole.time_ns().saturating_sub(whole.clock.wall_from_start_ticks(ticks));
        Value::Number((age / 1_000_000_000) as i64)
    }

    /// When the container's oldest process was made, in ticks since boot: its init, if that is known, or else the oldest
    /// that its cgroup lists. The oldest ancestor in the container alone would not do: a process that was put into it has
    /// none. `None` outside of containers too.
    pub fn container_start(&self) -> Option<u64> {
        let whole = self.whole.as_ref()?;
        let details = &whole.exec.details;
        let cgroup = details.cgroup()?;
        let container = Place::of_cgroup(cgroup).container_id?;
        let same = |relative: &&Relative| {
            relative.place().and_then(|place| place.container_id).as_deref() == Some(&*container)
        };
        let inside = self.ancestors().processes.iter().take_while(same);
        let started = std::iter::once((details.vpid, details.start_ticks))
            .chain(inside.map(|relative| (relative.vpid, relative.start_ticks)));
        let oldest = started.clone().filter_map(|(_, ticks)| ticks).min();
        let init = started.clone().find(|&(vpid, _)| vpid == Some(1)).and_then(|(_, ticks)| ticks);
        let listed = || {
            let start = whole.surroundings.processes.container_start(cgroup)?;
            Some(oldest.map_or(start, |oldest| oldest.min(start)))
        };
        init.or_else(listed)
    }

    fn user(&self, own: Option<&Name>, uid: Option<u32>) -> Value<'static> {
        match &self.whole {
            Some(whole) => name_value(whole.surroundings.accounts.users.of(own, uid)),
            None => Value::Unknown,
        }
    }

    fn own(&self, attribute: Attribute, argument: Option<&str>) -> Value<'_> {
        match attribute {
            Attribute::Cmdline => match self.image.raw_arguments() {
                Some(raw) => Value::Text(self.cmdline.get_or_init(|| join(raw)).as_slice().into()),
                None => Value::Unknown,
            },
            _ if attribute.of_utility() => self.of_utility(attribute),
            _ => of_image(attribute, self.image).unwrap_or_else(|| match &self.whole {
                Some(whole) => self.of_details(whole, attribute, argument),
                None => Value::Unknown,
            }),
        }
    }

    fn of_utility(&self, attribute: Attribute) -> Value<'_> {
        match self.utility {
            Some(Recognised { utility, via, disguised }) => match attribute {
                Attribute::UtilityVia => Value::Text(via.as_str().as_bytes().into()),
                Attribute::UtilityDisguised => Value::Flag(disguised),
                _ => self
                    .catalogue
                    .utilities()
                    .get(utility)
                    .and_then(|utility| utility_value(attribute, utility))
                    .unwrap_or(Value::Unknown),
            },
            // A program whose names or file could not be read might be any utility.
            None if self.image.exe().is_none() || self.unsettled => Value::Unknown,
            None => Value::Absent,
        }
    }

    fn of_details<'v>(
        &'v self,
        whole: &'v Whole<'a>,
        attribute: Attribute,
        argument: Option<&str>,
    ) -> Value<'v> {
        if let Some(value) = of_file(attribute, whole.exec, whole.surroundings, whole.time_ns()) {
            return value;
        }
        let details = &whole.exec.details;
        let host = &whole.surroundings.namespaces;
        let own = &details.namespaces;
        let differs =
            |own: Option<u64>, host: Option<u64>| Value::flag(own.zip(host).map(|(own, host)| own != host));
        let names = details.names.as_deref();
        match attribute {
            Attribute::Pid => Value::number(Some(whole.exec.pid).filter(|&pid| pid != 0)),
            Attribute::Ppid => Value::number(details.ppid),
            Attribute::Vpid => Value::number(details.vpid),
            Attribute::Start => self.start(details.start_ticks),
            Attribute::Age => self.age(details.start_ticks),
            Attribute::ExeUpperLayer => Value::flag(details.upper_layer),
            Attribute::ContainerAge => match whole.place(details, |place| place.container_id.as_deref()) {
                Value::Text(_) => self.age(self.container_start()),
                // On the host, or it is not known where.
                other => other,
            },
            Attribute::ContainerName => self.named(|named| named.name.as_deref(), true),
            Attribute::ContainerImage => self.named(|named| named.image.as_deref(), true),
            Attribute::PodName => self.named(|named| named.pod_name.as_deref(), false),
            Attribute::PodNamespace => self.named(|named| named.pod_namespace.as_deref(), false),
            Attribute::PodUid => whole.place(details, |place| place.pod_uid.as_deref()),
            Attribute::Slice => whole.place(details, |place| place.slice.as_deref()),
            Attribute::SshClient => match self.ssh_client() {
                Some(client) => Value::optional(
                    client.map(|client| Some(Cow::Owned(client.ip().to_string().into_bytes()))),
                ),
                None => Value::Absent,
            },
            Attribute::SshPort => match self.ssh_client() {
                Some(client) => Value::number(client.map(|client| client.port())),
                None => Value::Absent,
            },
            Attribute::ElevationProgram => match self.elevation() {
                Some((program, _)) => Value::Text(program.as_bytes().into()),
                None if self.ancestors().complete => Value::Absent,
                None => Value::Unknown,
            },
            Attribute::ElevationUser => match self.elevation() {
                Some((_, Some(caller))) => self.relative_user(caller),
                None if self.ancestors().complete => Value::Absent,
                _ => Value::Unknown,
            },
            Attribute::EntryKind => Value::text(self.entry().map(|(kind, _)| kind.as_str().as_bytes())),
            Attribute::Environment => details
                .variables()
                .map_or(Value::Unknown, |entries| Value::Texts(entries.map(Cow::Borrowed).collect())),
            Attribute::Comm => Value::text(details.comm()),
            Attribute::CmdlineComm => command_line(details.comm(), self.image),
            Attribute::Env => Value::optional(
                details
                    .variable(argument.unwrap_or_default().as_bytes())
                    .map(|value| value.map(Cow::Borrowed)),
            ),
            Attribute::Groups => match (details.uids, names) {
                (_, Some(own)) => own.groups.as_deref().map_or(Value::Unknown, Value::Words),
                (Some(_), None) => Value::Texts(
                    details
                        .groups
                        .iter()
                        .map(|&gid| {
                            let name = whole.surroundings.accounts.groups.name(gid);
                            Cow::Owned(name.unwrap_or_else(|| gid.to_string()).into_bytes())
                        })
                        .collect(),
                ),
                (None, None) => Value::Unknown,
            },
            Attribute::LoginUser => match details.login {
                Some(Login::Nobody) => Value::Absent,
                login => self.user(names.map(|own| &own.login), login.and_then(Login::user)),
            },
            Attribute::Loginuid => match details.login {
                Some(Login::Nobody) => Value::Absent,
                login => Value::number(login.and_then(Login::user)),
            },
            Attribute::CapabilitiesEffective => capabilities(details.capabilities.effective),
            Attribute::CapabilitiesPermitted => capabilities(details.capabilities.permitted),
            Attribute::CapabilitiesInheritable => capabilities(details.capabilities.inheritable),
            Attribute::CapabilitiesAmbient => capabilities(details.capabilities.ambient),
            Attribute::Cwd => Value::text(details.cwd()),
            Attribute::Tty => terminal(details.tty),
            Attribute::Interactive => Value::flag(details.tty.map(|device| device != 0)),
            Attribute::Session => Value::number(details.session),
            Attribute::ProcessGroup => Value::number(details.pgid),
            Attribute::Cgroup => details.cgroup().map_or(Value::Unknown, Value::Cgroups),
            Attribute::ContainerId => whole.place(details, |place| place.container_id.as_deref()),
            Attribute::ContainerRuntime => whole.place(details, |place| place.runtime),
            Attribute::Unit => whole.place(details, |place| place.unit.as_deref()),
            Attribute::NamespacePid => differs(own.pid, host.pid),
            Attribute::NamespaceMnt => differs(own.mnt, host.mnt),
            Attribute::NamespaceNet => differs(own.net, host.net),
            Attribute::NamespaceUser => differs(own.user, host.user),
            Attribute::TimeHour => Value::number(whole.local().map(|time| time.hour)),
            Attribute::TimeWeekday => Value::text(whole.local().map(|time| time.weekday_name().as_bytes())),
            Attribute::AlreadyRunning => Value::Flag(whole.exec.certainty.found_running()),
            Attribute::FirstSeen => Value::flag(whole.past.map(|past| past.knowledge == Knowledge::New)),
            Attribute::BaselineDays => past_number(whole.past.map(|past| past.days)),
            Attribute::BaselineCount => past_number(whole.past.map(|past| past.count)),
            _ => self.account(attribute, details.uids, details.gids, names),
        }
    }
}

fn past_number(number: Option<u64>) -> Value<'static> {
    Value::number(number.map(|number| i64::try_from(number).unwrap_or(i64::MAX)))
}

fn owned(text: String) -> Cow<'static, [u8]> {
    Cow::Owned(text.into_bytes())
}
/// A field of a catalogue's entry; `None` if the field is not a property of the entry alone.
pub fn utility_value(attribute: Attribute, utility: &Utility) -> Option<Value<'_>> {
    Some(match attribute {
        Attribute::UtilityName => Value::Text(utility.name.as_bytes().into()),
        Attribute::UtilityCategory => Value::Text(utility.category.as_bytes().into()),
        Attribute::UtilityAttack => Value::Words(&utility.attack),
        Attribute::UtilityEveryday => Value::Flag(utility.everyday),
        _ => return None,
    })
}

/// A field of executable and arguments; `None` if the field is none.
fn of_image(attribute: Attribute, image: &Image) -> Option<Value<'_>> {
    let arguments = || {
        let mut argv = image.argv()?;
        argv.next();
        Some(argv)
    };
    // The last argument of a list that was cut may be a part of one.
    let whole_arguments =
        || arguments().map(|list| list.clone().take(list.count().saturating_sub(usize::from(image.cut()))));
    let decomposed = |parts: Option<Vec<_>>| parts.map_or(Value::Unknown, Value::Texts);
    Some(match attribute {
        Attribute::Exe => Value::text(image.exe()),
        Attribute::ExeName => Value::text(image.name()),
        Attribute::ExeDir => Value::text(image.exe().map(folder)),
        Attribute::ExeDeleted => Value::flag(image.deleted()),
        Attribute::ExeMemfd => Value::flag(image.memfd()),
        Attribute::Script => match (image.exe(), image.argv()) {
            (Some(_), Some(_)) => Value::optional(Some(catalogue::script(image).map(Cow::Borrowed))),
            _ => Value::Unknown,
        },
        Attribute::Argv0 => match image.argv() {
            Some(mut argv) => argv.next().map_or(Value::Absent, |argv0| Value::Text(argv0.into())),
            None => Value::Unknown,
        },
        Attribute::Argv => image.argv().map_or(Value::Unknown, Value::Arguments),
        Attribute::Args => arguments().map_or(Value::Unknown, Value::Arguments),
        Attribute::ArgsCut => Value::flag(image.argv().map(|_| image.cut())),
        Attribute::ArgsCount => match arguments() {
            Some(arguments) if !image.cut() => Value::Number(arguments.count() as i64),
            _ => Value::Unknown,
        },
        Attribute::ArgsFlags => decomposed(whole_arguments().map(arguments::flags)),
        Attribute::ArgsOptions => decomposed(whole_arguments().map(arguments::options)),
        Attribute::Cmdline => {
            image.raw_arguments().map_or(Value::Unknown, |raw| Value::Text(join(raw).into()))
        }
        Attribute::CmdlineArgs => match image.raw_arguments() {
            Some(raw) => {
                let rest =
                    raw.iter().position(|&byte| byte == 0).map_or(&raw[raw.len()..], |nul| &raw[nul + 1..]);
                Value::Text(join(rest).into())
            }
            None => Value::Unknown,
        },
        _ => return None,
    })
}

/// comm and the arguments after argv\[0\], as some engines write a command line.
fn command_line<'v>(comm: Option<&[u8]>, image: &Image) -> Value<'v> {
    let (Some(comm), Some(argv)) = (comm, image.argv()) else { return Value::Unknown };
    let mut line = comm.to_vec();
    for argument in argv.skip(1) {
        line.push(b' ');
        line.extend_from_slice(argument);
    }
    Value::Text(line.into())
}

/// What stands before the last slash.
fn folder(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(0) => b"/",
        Some(slash) => &path[..slash],
        None => b"",
    }
}

fn terminal<'v>(device: Option<u32>) -> Value<'v> {
    Value::optional(device.map(|device| tty_name(device).map(|name| Cow::Owned(name.into_bytes()))))
}

/// Names of capabilities by their bits (include/uapi/linux/capability.h).
pub const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// The names of the capabilities in a set, but for those that have none.
pub fn capability_names(bits: u64) -> impl Iterator<Item = &'static str> {
    CAPABILITIES.into_iter().enumerate().filter(move |(bit, _)| bits >> bit & 1 == 1).map(|(_, name)| name)
}

fn capabilities<'v>(bits: Option<u64>) -> Value<'v> {
    let Some(bits) = bits else { return Value::Unknown };
    Value::Texts(capability_names(bits).map(|name| Cow::Borrowed(name.as_bytes())).collect())
}

fn name_value(name: Name) -> Value<'static> {
    match name {
        Name::Unknown => Value::Unknown,
        Name::Absent => Value::Absent,
        Name::Is(name) => Value::name(name),
    }
}

/// Arguments joined with single spaces.
pub fn join(raw: &[u8]) -> Vec<u8> {
    raw.iter().map(|&byte| if byte == 0 { b' ' } else { byte }).collect()
}
