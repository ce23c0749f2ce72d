//! The vocabulary of rules: one table, which drives the reader of rules, `execwatch rules --fields` and the manual.

mod attributes;

pub use attributes::ATTRIBUTES;

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
