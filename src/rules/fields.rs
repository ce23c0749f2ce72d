//! The vocabulary of rules: one table, which drives the reader of rules, `execwatch rules --fields` and the manual.

/// Whose property a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The executed program.
    Own,
    /// Its parent.
    Parent,
    /// Any of its ancestors, the parent included.
    Ancestor,
    /// One ancestor by number: 1 is the parent, 2 the grandparent.
    AncestorAt(u8),
    /// The leader of its session.
    SessionLeader,
    /// The leader of its process group.
    GroupLeader,
    /// The process with which the way to it began; see [`entry`](crate::process::entry).
    EntryLeader,
}

/// A property of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "ATTRIBUTES documents each")]
pub enum Attribute {
    Pid,
    Ppid,
    Vpid,
    Start,
    Age,
    Exe,
    ExeName,
    ExeDir,
    ExeDeleted,
    ExeMemfd,
    ExeSize,
    ExeLinks,
    ExeAge,
    ExeChanged,
    ExeMode,
    ExeSetuid,
    ExeSetgid,
    ExeOwner,
    ExeGroup,
    ExeSha256,
    ExePackageManaged,
    ExeUpperLayer,
    Script,
    Comm,
    Argv0,
    Argv,
    Args,
    ArgsCount,
    ArgsCut,
    ArgsFlags,
    ArgsOptions,
    Cmdline,
    CmdlineArgs,
    CmdlineComm,
    Env,
    Environment,
    Cwd,
    Tty,
    Interactive,
    User,
    Uid,
    UserEffective,
    Euid,
    Gid,
    Egid,
    Group,
    GroupEffective,
    Groups,
    LoginUser,
    Loginuid,
    CapabilitiesEffective,
    CapabilitiesPermitted,
    CapabilitiesInheritable,
    CapabilitiesAmbient,
    Session,
    ProcessGroup,
    Cgroup,
    ContainerId,
    ContainerRuntime,
    ContainerAge,
    ContainerName,
    ContainerImage,
    PodName,
    PodNamespace,
    PodUid,
    Slice,
    SshClient,
    SshPort,
    ElevationProgram,
    ElevationUser,
    Unit,
    EntryKind,
    NamespacePid,
    NamespaceMnt,
    NamespaceNet,
    NamespaceUser,
    UtilityName,
    UtilityCategory,
    UtilityAttack,
    UtilityEveryday,
    UtilityVia,
    UtilityDisguised,
    TimeHour,
    TimeWeekday,
    AlreadyRunning,
    FirstSeen,
    BaselineDays,
    BaselineCount,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes.
    Text,
    /// Several texts: a test holds if one of them fulfils it.
    List,
    /// A whole number.
    Number,
    /// True or false.
    Flag,
}

impl Kind {
    /// The word used in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::List => "list",
            Kind::Number => "number",
            Kind::Flag => "true or false",
        }
    }
}

/// A row of the table.
#[derive(Debug)]
pub struct AttributeInfo {
    /// The property.
    pub attribute: Attribute,
    /// Its name in rules. `NAME` in it stands for a word of the rule's choosing.
    pub name: &'static str,
    /// A shorter name.
    pub short: Option<&'static str>,
    /// What it holds.
    pub kind: Kind,
    /// Known on the hot path, where the prefilter decides.
    pub hot: bool,
    /// Parent, ancestors and leaders have it too.
    pub relatives: bool,
    /// What it is, in a line.
    pub description: &'static str,
}

const fn row(
    attribute: Attribute,
    name: &'static str,
    kind: Kind,
    description: &'static str,
) -> AttributeInfo {
    AttributeInfo { attribute, name, short: None, kind, hot: false, relatives: false, description }
}

impl AttributeInfo {
    const fn hot(self) -> Self {
        AttributeInfo { hot: true, ..self }
    }

    const fn relatives(self) -> Self {
        AttributeInfo { relatives: true, ..self }
    }

    const fn short(self, name: &'static str) -> Self {
        AttributeInfo { short: Some(name), ..self }
    }
}

/// Every property.
pub const ATTRIBUTES: &[AttributeInfo] = {
    use Attribute as A;
    use Kind::{Flag, List, Number, Text};
    &[
        row(A::Exe, "exe", Text, "path of the executed file, links resolved, as the host sees it")
            .hot()
            .relatives(),
        row(A::ExeName, "exe.name", Text, "base name of exe; of a memfd, its name")
            .short("name")
            .hot()
            .relatives(),
        row(A::ExeDir, "exe.dir", Text, "folder of exe, without a slash at the end").hot().relatives(),
        row(A::ExeDeleted, "exe.deleted", Flag, "the executable was unlinked")
            .short("deleted")
            .hot()
            .relatives(),
        row(A::ExeMemfd, "exe.memfd", Flag, "the executable is anonymous memory")
            .short("memfd")
            .hot()
            .relatives(),
        row(A::ExeSize, "exe.size", Number, "size of the executable in bytes"),
        row(A::ExeLinks, "exe.links", Number, "hard links to the executable; 0 if it was unlinked"),
        row(A::ExeAge, "exe.age", Number, "seconds since the executable's content was modified"),
        row(
            A::ExeChanged,
            "exe.changed",
            Number,
            "seconds since the executable's content, name, owner or mode was changed",
        ),
        row(A::ExeMode, "exe.mode", Number, "permission bits of the executable, such as 0o4755"),
        row(A::ExeSetuid, "exe.setuid", Flag, "the executable runs as its owner"),
        row(A::ExeSetgid, "exe.setgid", Flag, "the executable runs as its group"),
        row(A::ExeOwner, "exe.owner", Text, "name of the executable's owner, or the number if it has none"),
        row(A::ExeGroup, "exe.group", Text, "name of the executable's group, or the number if it has none"),
        row(A::ExeSha256, "exe.sha256", Text, "SHA-256 of the executable in hexadecimal, small letters"),
        row(
            A::ExePackageManaged,
            "exe.package-managed",
            Flag,
            "the executable belongs to a package of dpkg, apk or pacman; unknown with rpm",
        ),
        row(
            A::ExeUpperLayer,
            "exe.upper-layer",
            Flag,
            "the executable lies in the upper layer of an overlay mount: no part of a container's image",
        ),
        row(A::Script, "script", Text, "the script that an interpreter was told to run, as given")
            .hot()
            .relatives(),
        row(A::Comm, "comm", Text, "the kernel's name of the process, at most 15 bytes").relatives(),
        row(A::Argv0, "argv0", Text, "argv[0] as the caller gave it").hot().relatives(),
        row(A::Argv, "argv", List, "the arguments, argv[0] included").hot().relatives(),
        row(A::Args, "args", List, "the arguments after argv[0]").hot().relatives(),
        row(A::ArgsCount, "args.count", Number, "number of arguments after argv[0]").hot().relatives(),
        row(A::ArgsCut, "args.cut", Flag, "the argument list was longer than what is kept of it")
            .hot()
            .relatives(),
        row(
            A::ArgsFlags,
            "args.flags",
            List,
            "flags without dashes: of -lvp l, v, p and lvp; of --version version",
        )
        .hot()
        .relatives(),
        row(A::ArgsOptions, "args.options", List, "options with values: of --port=22 port=22, of -T 8 T=8")
            .hot()
            .relatives(),
        row(A::Cmdline, "cmdline", Text, "all arguments joined with single spaces, argv[0] included")
            .hot()
            .relatives(),
        row(A::CmdlineArgs, "cmdline.args", Text, "the arguments after argv[0] joined with single spaces")
            .hot()
            .relatives(),
        row(
            A::CmdlineComm,
            "cmdline.comm",
            Text,
            "comm and the arguments after argv[0] joined with single spaces",
        )
        .relatives(),
        row(
            A::Env,
            "env.NAME",
            Text,
            "value of the environment variable NAME at the start; absent if it is not set",
        ),
        row(A::Environment, "env", List, "the environment at the start, as NAME=VALUE"),
        row(A::Pid, "pid", Number, "process id").hot().relatives(),
        row(A::Ppid, "ppid", Number, "the parent's process id").relatives(),
        row(A::Vpid, "vpid", Number, "process id inside the innermost pid namespace").relatives(),
        row(A::Start, "start", Number, "when the process was made, in seconds since 1970").relatives(),
        row(A::Age, "age", Number, "seconds from when the process was made until the exec").relatives(),
        row(A::User, "user", Text, "name of the real user").short("user.name").relatives(),
        row(A::Uid, "uid", Number, "id of the real user").short("user.id").relatives(),
        row(A::UserEffective, "user.effective", Text, "name of the effective user").relatives(),
        row(A::Euid, "euid", Number, "id of the effective user").relatives(),
        row(A::Group, "group", Text, "name of the real group").relatives(),
        row(A::Gid, "gid", Number, "id of the real group").relatives(),
        row(A::GroupEffective, "group.effective", Text, "name of the effective group").relatives(),
        row(A::Egid, "egid", Number, "id of the effective group").relatives(),
        row(
            A::Groups,
            "groups",
            List,
            "names of the supplementary groups, or numbers of those without a name",
        ),
        row(
            A::LoginUser,
            "login.user",
            Text,
            "name of the user who logged in, through su and sudo; absent for services",
        ),
        row(A::Loginuid, "loginuid", Number, "id of the user who logged in; absent for services"),
        row(
            A::CapabilitiesEffective,
            "capabilities.effective",
            List,
            "capabilities in force, such as net_raw",
        ),
        row(A::CapabilitiesPermitted, "capabilities.permitted", List, "capabilities it may put in force"),
        row(
            A::CapabilitiesInheritable,
            "capabilities.inheritable",
            List,
            "capabilities kept over an exec of a file that has them",
        ),
        row(A::CapabilitiesAmbient, "capabilities.ambient", List, "capabilities kept over any exec"),
        row(A::Cwd, "cwd", Text, "working directory").relatives(),
        row(A::Tty, "tty", Text, "controlling terminal, such as pts/0; absent if there is none").relatives(),
        row(A::Interactive, "interactive", Flag, "has a controlling terminal").relatives(),
        row(A::Session, "session", Number, "session id: the pid of the session's leader"),
        row(A::ProcessGroup, "process-group", Number, "process group id: the pid of the group's leader"),
        row(A::Cgroup, "cgroup", List, "the paths in /proc/PID/cgroup").relatives(),
        row(A::ContainerId, "container.id", Text, "id of the container, from the cgroup; absent on the host")
            .relatives(),
        row(
            A::ContainerRuntime,
            "container.runtime",
            Text,
            "what made the container: docker, containerd, cri-o, podman, lxc, nspawn; absent if the cgroup does not tell",
        )
        .relatives(),
        row(
            A::ContainerName,
            "container.name",
            Text,
            "name of the container, from its runtime's state files; absent on the host",
        ),
        row(
            A::ContainerImage,
            "container.image",
            Text,
            "image of the container as it was asked for, from its runtime's state files; absent on the host",
        ),
        row(
            A::ContainerAge,
            "container.age",
            Number,
            "seconds since the container's oldest process was made; absent on the host",
        ),
        row(
            A::Unit,
            "unit",
            Text,
            "systemd unit, such as nginx.service, from the cgroup; absent if there is none",
        )
        .relatives(),
        row(A::PodUid, "pod.uid", Text, "uid of the Kubernetes pod, from the cgroup; absent if there is none")
            .relatives(),
        row(
            A::PodName,
            "pod.name",
            Text,
            "name of the Kubernetes pod, from the runtime's state files; absent if there is none",
        ),
        row(
            A::PodNamespace,
            "pod.namespace",
            Text,
            "namespace of the Kubernetes pod, from the runtime's state files; absent if there is none",
        ),
        row(
            A::Slice,
            "slice",
            Text,
            "systemd slice, such as user-1000.slice, from the cgroup; absent if there is none",
        )
        .relatives(),
        row(
            A::SshClient,
            "ssh.client",
            Text,
            "address of the client in an ssh session, from its environment; absent outside of one",
        ),
        row(A::SshPort, "ssh.port", Number, "port of the client in an ssh session; absent outside of one"),
        row(
            A::ElevationProgram,
            "elevation.program",
            Text,
            "the nearest of sudo, su, doas, pkexec and runuser on the way to the program; absent if there is none",
        ),
        row(
            A::ElevationUser,
            "elevation.user",
            Text,
            "name of the user who called it; absent if there is none",
        ),
        row(
            A::EntryKind,
            "entry.kind",
            Text,
            "how the way to the program began: ssh, remote, login, cron, container, service, kernel, init",
        ),
        row(A::NamespacePid, "namespace.pid", Flag, "in another pid namespace than the host's"),
        row(A::NamespaceMnt, "namespace.mnt", Flag, "in another mount namespace than the host's"),
        row(A::NamespaceNet, "namespace.net", Flag, "in another network namespace than the host's"),
        row(A::NamespaceUser, "namespace.user", Flag, "in another user namespace than the host's"),
        row(
            A::UtilityName,
            "utility.name",
            Text,
            "the catalogue's name of the program; absent if it has none",
        )
        .hot(),
        row(A::UtilityCategory, "utility.category", Text, "the utility's category").hot(),
        row(A::UtilityAttack, "utility.attack", List, "the utility's ATT&CK techniques").hot(),
        row(A::UtilityEveryday, "utility.everyday", Flag, "ordinary operation starts the utility too").hot(),
        row(
            A::UtilityVia,
            "utility.via",
            Text,
            "how it was recognised: exe, argv0, comm, applet, loader, script, identity",
        )
        .hot(),
        row(A::UtilityDisguised, "utility.disguised", Flag, "the name it shows is none of the utility's")
            .hot(),
        row(A::TimeHour, "time.hour", Number, "hour of the day in the host's time zone, 0 to 23"),
        row(
            A::TimeWeekday,
            "time.weekday",
            Text,
            "day of the week in the host's time zone: mon tue wed thu fri sat sun",
        ),
        row(
            A::AlreadyRunning,
            "already-running",
            Flag,
            "found running, at the start of execwatch or after a loss, and not seen to be executed",
        ),
        row(
            A::FirstSeen,
            "first-seen",
            Flag,
            "the baseline has not seen this program, run so, before, or not for long",
        ),
        row(A::BaselineDays, "baseline.days", Number, "on how many days the baseline has seen it before"),
        row(A::BaselineCount, "baseline.count", Number, "how often the baseline has seen it before"),
    ]
};

/// Beginnings of the names of relatives' properties, with what each is.
pub const RELATIVES: &[(&str, &str)] = &[
    ("parent", "the parent"),
    ("ancestor", "any ancestor, the parent included"),
    ("ancestor.N", "the ancestor of that number: 1 is the parent, 2 the grandparent"),
    ("session-leader", "the leader of the session"),
    ("group-leader", "the leader of the process group"),
    ("entry-leader", "the process with which the way to the program began; see entry.kind"),
];

/// A field as a rule names it.
#[derive(Debug, Clone)]
pub struct Field {
    /// Whose.
    pub role: Role,
    /// What.
    pub info: &'static AttributeInfo,
    /// The word in the place of `NAME`.
    pub argument: Option<Box<str>>,
}

impl Field {
    /// The field called `name`.
    pub fn find(name: &str) -> Option<Field> {
        if let Some(field) = Field::own(name) {
            return Some(field);
        }
        let (role, rest) = Role::split(name)?;
        let field = Field::own(rest).filter(|field| field.info.relatives)?;
        Some(Field { role, ..field })
    }

    fn own(name: &str) -> Option<Field> {
        let field = |info, argument| Some(Field { role: Role::Own, info, argument });
        if let Some(variable) = name.strip_prefix("env.") {
            let info = ATTRIBUTES.iter().find(|info| info.attribute == Attribute::Env)?;
            let good = !variable.is_empty() && !variable.contains(['=', '\0']);
            return field(info, Some(variable.into())).filter(|_| good);
        }
        let known = |info: &&AttributeInfo| info.name == name || info.short == Some(name);
        field(ATTRIBUTES.iter().find(known).filter(|info| info.attribute != Attribute::Env)?, None)
    }

    /// All names that [`find`](Self::find) knows, but for numbered ancestors and environment variables.
    pub fn names() -> impl Iterator<Item = String> {
        let own =
            ATTRIBUTES.iter().flat_map(|info| [Some(info.name), info.short]).flatten().map(str::to_owned);
        let prefixes = RELATIVES.iter().filter(|(prefix, _)| !prefix.ends_with(".N"));
        let relatives = prefixes.flat_map(|(prefix, _)| {
            let has = ATTRIBUTES.iter().filter(|info| info.relatives);
            has.flat_map(|info| [Some(info.name), info.short])
                .flatten()
                .map(move |name| format!("{prefix}.{name}"))
        });
        own.chain(relatives)
    }

    /// Known on the hot path.
    pub fn hot(&self) -> bool {
        self.role == Role::Own && self.info.hot
    }

    /// Can be read by a listener while it holds the program: in bounded time, without a lock that others may keep, and
    /// from nowhere but /proc. Of what is left out, arguments of other processes take the lock of their memory maps,
    /// control groups took that of all control groups before Linux 6.8, and the rest lies in files or in the worker's
    /// memory.
    pub fn held(&self) -> bool {
        use Attribute as A;
        let attribute = self.info.attribute;
        match self.role {
            Role::Own => !matches!(
                attribute,
                A::ExeSha256
                    | A::ExePackageManaged
                    | A::ExeUpperLayer
                    | A::ContainerAge
                    | A::ContainerName
                    | A::ContainerImage
                    | A::PodName
                    | A::PodNamespace
                    | A::SshClient
                    | A::SshPort
                    | A::ElevationProgram
                    | A::ElevationUser
                    | A::EntryKind
                    | A::FirstSeen
                    | A::BaselineDays
                    | A::BaselineCount
            ),
            Role::EntryLeader => false,
            Role::Parent | Role::Ancestor | Role::AncestorAt(_) | Role::SessionLeader | Role::GroupLeader => {
                let of_arguments = attribute.of_arguments()
                    || matches!(attribute, A::Script | A::Argv0 | A::ArgsCount | A::ArgsCut);
                let of_cgroup = matches!(
                    attribute,
                    A::Cgroup | A::ContainerId | A::ContainerRuntime | A::PodUid | A::Slice | A::Unit
                );
                !of_arguments && !of_cgroup
            }
        }
    }
}

impl Role {
    /// Splits `parent.exe` into role and the rest.
    fn split(name: &str) -> Option<(Role, &str)> {
        let (first, rest) = name.split_once('.')?;
        match first {
            "parent" => Some((Role::Parent, rest)),
            "session-leader" => Some((Role::SessionLeader, rest)),
            "group-leader" => Some((Role::GroupLeader, rest)),
            "entry-leader" => Some((Role::EntryLeader, rest)),
            "ancestor" => {
                let numbered = rest.split_once('.').and_then(|(number, rest)| {
                    let number: u8 = number.parse().ok().filter(|&number| number > 0)?;
                    Some((Role::AncestorAt(number), rest))
                });
                Some(numbered.unwrap_or((Role::Ancestor, rest)))
            }
            _ => None,
        }
    }
}

impl Attribute {
    /// There is a value only for a program that is in the catalogue.
    pub fn of_utility(self) -> bool {
        matches!(
            self,
            Attribute::UtilityName
                | Attribute::UtilityCategory
                | Attribute::UtilityAttack
                | Attribute::UtilityEveryday
                | Attribute::UtilityVia
                | Attribute::UtilityDisguised
        )
    }

    /// Arguments may have been cut, which makes what is not found unknown.
    pub fn of_arguments(self) -> bool {
        matches!(
            self,
            Attribute::Argv
                | Attribute::Args
                | Attribute::ArgsFlags
                | Attribute::ArgsOptions
                | Attribute::Cmdline
                | Attribute::CmdlineArgs
                | Attribute::CmdlineComm
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_find_their_fields() {
        for name in Field::names().filter(|name| !name.ends_with("NAME")) {
            assert!(Field::find(&name).is_some(), "{name}");
        }
        let is = |name: &str, role, attribute| {
            let field = Field::find(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!((field.role, field.info.attribute), (role, attribute), "{name}");
        };
        is("name", Role::Own, Attribute::ExeName);
        is("parent.name", Role::Parent, Attribute::ExeName);
        is("ancestor.exe.name", Role::Ancestor, Attribute::ExeName);
        is("ancestor.2.args.flags", Role::AncestorAt(2), Attribute::ArgsFlags);
        is("session-leader.comm", Role::SessionLeader, Attribute::Comm);
        assert_eq!(Field::find("env.LD_PRELOAD").unwrap().argument.as_deref(), Some("LD_PRELOAD"));
        for unknown in
            ["", "exe.", "env.", "parent.loginuid", "ancestor.0.exe", "parent.parent.exe", "env.A=B"]
        {
            assert!(Field::find(unknown).is_none(), "{unknown}");
        }
    }

    #[test]
    fn no_two_fields_share_a_name() {
        let mut names: Vec<String> = Field::names().collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
