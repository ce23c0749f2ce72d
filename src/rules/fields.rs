//! The vocabulary of rules: one table of fields, and how each is read from an exec.

use std::borrow::Cow;
use std::cell::OnceCell;

use super::catalogue::{Catalogue, Recognised, Utility};
use super::condition::Truth;
use super::pattern::Pattern;
use crate::process::details::{Details, Namespaces};
use crate::process::exec::{Argv, Exec, Image};
use crate::process::parse::cgroup_paths;
use crate::process::users::Users;

/// A field of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "FIELDS documents each")]
pub enum Field {
    Exe,
    Name,
    Comm,
    Argv0,
    Args,
    ArgsCount,
    Cmdline,
    Deleted,
    Memfd,
    Pid,
    Ppid,
    User,
    Uid,
    UserEffective,
    Euid,
    Gid,
    Egid,
    LoginUser,
    Loginuid,
    Session,
    Tty,
    Interactive,
    Cwd,
    Cgroup,
    ParentExe,
    ParentName,
    ParentCmdline,
    ParentArgs,
    NamespacePid,
    NamespaceMnt,
    NamespaceNet,
    NamespaceUser,
    UtilityName,
    UtilityCategory,
    UtilityAttack,
    UtilityEveryday,
    UtilityVia,
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

/// A row of the table of fields.
#[derive(Debug, Clone, Copy)]
pub struct FieldInfo {
    /// The field.
    pub field: Field,
    /// Its name in rules.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Known on the hot path, where the prefilter decides.
    pub hot: bool,
    /// What it is, in a line.
    pub description: &'static str,
}

const fn row(
    field: Field,
    name: &'static str,
    kind: Kind,
    hot: bool,
    description: &'static str,
) -> FieldInfo {
    FieldInfo { field, name, kind, hot, description }
}

/// Every field.
pub const FIELDS: &[FieldInfo] = &[
    row(
        Field::Exe,
        "exe",
        Kind::Text,
        true,
        "path of the executed file, links resolved, as the host sees it",
    ),
    row(Field::Name, "name", Kind::Text, true, "base name of exe; of a memfd, its name"),
    row(Field::Comm, "comm", Kind::Text, false, "the kernel's name of the process, at most 15 bytes"),
    row(Field::Argv0, "argv0", Kind::Text, true, "argv[0] as the caller gave it"),
    row(Field::Args, "args", Kind::List, true, "the arguments after argv[0]"),
    row(Field::ArgsCount, "args.count", Kind::Number, true, "number of arguments after argv[0]"),
    row(
        Field::Cmdline,
        "cmdline",
        Kind::Text,
        true,
        "all arguments joined with single spaces, argv[0] included",
    ),
    row(Field::Deleted, "deleted", Kind::Flag, true, "the executable was unlinked"),
    row(Field::Memfd, "memfd", Kind::Flag, true, "the executable is anonymous memory"),
    row(Field::Pid, "pid", Kind::Number, true, "process id"),
    row(Field::Ppid, "ppid", Kind::Number, false, "the parent's process id"),
    row(Field::User, "user", Kind::Text, false, "name of the real user"),
    row(Field::Uid, "uid", Kind::Number, false, "id of the real user"),
    row(Field::UserEffective, "user.effective", Kind::Text, false, "name of the effective user"),
    row(Field::Euid, "euid", Kind::Number, false, "id of the effective user"),
    row(Field::Gid, "gid", Kind::Number, false, "id of the real group"),
    row(Field::Egid, "egid", Kind::Number, false, "id of the effective group"),
    row(
        Field::LoginUser,
        "login.user",
        Kind::Text,
        false,
        "name of the user who logged in, through su and sudo",
    ),
    row(
        Field::Loginuid,
        "loginuid",
        Kind::Number,
        false,
        "id of the user who logged in; absent for services",
    ),
    row(Field::Session, "session", Kind::Number, false, "session id: the pid of the session's leader"),
    row(Field::Tty, "tty", Kind::Text, false, "controlling terminal, such as pts/0; absent if there is none"),
    row(Field::Interactive, "interactive", Kind::Flag, false, "has a controlling terminal"),
    row(Field::Cwd, "cwd", Kind::Text, false, "working directory"),
    row(Field::Cgroup, "cgroup", Kind::List, false, "the paths in /proc/PID/cgroup"),
    row(Field::ParentExe, "parent.exe", Kind::Text, false, "path of the parent's executable"),
    row(Field::ParentName, "parent.name", Kind::Text, false, "base name of parent.exe"),
    row(
        Field::ParentCmdline,
        "parent.cmdline",
        Kind::Text,
        false,
        "the parent's arguments joined with single spaces",
    ),
    row(Field::ParentArgs, "parent.args", Kind::List, false, "the parent's arguments after argv[0]"),
    row(Field::NamespacePid, "namespace.pid", Kind::Flag, false, "in another pid namespace than the host's"),
    row(
        Field::NamespaceMnt,
        "namespace.mnt",
        Kind::Flag,
        false,
        "in another mount namespace than the host's",
    ),
    row(
        Field::NamespaceNet,
        "namespace.net",
        Kind::Flag,
        false,
        "in another network namespace than the host's",
    ),
    row(
        Field::NamespaceUser,
        "namespace.user",
        Kind::Flag,
        false,
        "in another user namespace than the host's",
    ),
    row(
        Field::UtilityName,
        "utility.name",
        Kind::Text,
        true,
        "the catalogue's name of the program; absent if it has none",
    ),
    row(Field::UtilityCategory, "utility.category", Kind::Text, true, "the utility's category"),
    row(Field::UtilityAttack, "utility.attack", Kind::List, true, "the utility's ATT&CK techniques"),
    row(
        Field::UtilityEveryday,
        "utility.everyday",
        Kind::Flag,
        true,
        "ordinary operation starts the utility too",
    ),
    row(
        Field::UtilityVia,
        "utility.via",
        Kind::Text,
        true,
        "how it was recognised: exe, argv0, applet, loader, script",
    ),
];

impl Field {
    /// The row of the field called `name`.
    pub fn find(name: &str) -> Option<&'static FieldInfo> {
        FIELDS.iter().find(|info| info.name == name)
    }

    /// True if there is a value only for a program that is in the catalogue.
    pub fn of_utility(self) -> bool {
        matches!(
            self,
            Field::UtilityName
                | Field::UtilityCategory
                | Field::UtilityAttack
                | Field::UtilityEveryday
                | Field::UtilityVia
        )
    }
}

/// A field's value.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    /// It could not be read, or has not been read yet.
    Unknown,
    /// It is known that there is none.
    Absent,
    /// A text.
    Text(Cow<'a, [u8]>),
    /// Arguments.
    Arguments(std::iter::Skip<Argv<'a>>),
    /// The content of /proc/PID/cgroup.
    Cgroups(&'a [u8]),
    /// Words.
    Words(&'a [String]),
    /// A number.
    Number(i64),
    /// True or false.
    Flag(bool),
}

impl Value<'_> {
    /// Calls `judge` with each text; true as soon as one call is.
    fn any_text(&self, mut judge: impl FnMut(&[u8]) -> bool) -> bool {
        match self {
            Value::Text(text) => judge(text),
            Value::Arguments(arguments) => arguments.clone().any(judge),
            Value::Cgroups(lines) => cgroup_paths(lines).any(judge),
            Value::Words(words) => words.iter().any(|word| judge(word.as_bytes())),
            Value::Unknown | Value::Absent | Value::Number(_) | Value::Flag(_) => false,
        }
    }
}

/// What is needed besides the exec to read its fields.
#[derive(Debug)]
pub struct Surroundings {
    /// User names.
    pub users: Users,
    /// The host's namespaces.
    pub namespaces: Namespaces,
}

/// An exec whose fields are read.
#[derive(Debug)]
pub struct Subject<'a> {
    pid: Option<u32>,
    image: &'a Image,
    /// `None` on the hot path: all of it is unknown there.
    details: Option<(&'a Details, &'a Surroundings)>,
    catalogue: &'a Catalogue,
    utility: Option<Recognised>,
    cmdline: OnceCell<Vec<u8>>,
}

impl<'a> Subject<'a> {
    /// On the hot path: only executable and arguments are known.
    pub fn hot(image: &'a Image, catalogue: &'a Catalogue) -> Self {
        let utility = catalogue.recognise(image);
        Subject { pid: None, image, details: None, catalogue, utility, cmdline: OnceCell::new() }
    }

    /// With everything that was read.
    pub fn whole(exec: &'a Exec, catalogue: &'a Catalogue, surroundings: &'a Surroundings) -> Self {
        let details = Some((&exec.details, surroundings));
        Subject { pid: Some(exec.pid), details, ..Subject::hot(&exec.image, catalogue) }
    }

    /// Executable and arguments.
    pub fn image(&self) -> &'a Image {
        self.image
    }

    /// The utility it was recognised as.
    pub fn utility(&self) -> Option<Recognised> {
        self.utility
    }

    /// Reads a field.
    pub fn value(&self, field: Field) -> Value<'_> {
        let image = self.image;
        match field {
            Field::Exe => text(image.exe()),
            Field::Name => text(image.name()),
            Field::Argv0 => match image.argv() {
                Some(mut argv) => argv.next().map_or(Value::Absent, |argv0| Value::Text(argv0.into())),
                None => Value::Unknown,
            },
            Field::Args => arguments(image),
            Field::ArgsCount => match image.argv() {
                Some(argv) if !image.cut() => Value::Number(argv.count().saturating_sub(1) as i64),
                _ => Value::Unknown,
            },
            Field::Cmdline => match image.raw_arguments() {
                Some(raw) => Value::Text(self.cmdline.get_or_init(|| join(raw)).as_slice().into()),
                None => Value::Unknown,
            },
            Field::Deleted => flag(image.deleted()),
            Field::Memfd => flag(image.memfd()),
            Field::Pid => number(self.pid),
            _ if field.of_utility() => match self.utility {
                Some(Recognised { utility, via }) => self
                    .catalogue
                    .utilities()
                    .get(utility)
                    .and_then(|utility| utility_value(field, utility))
                    .unwrap_or_else(|| Value::Text(via.as_str().as_bytes().into())),
                // A program with unreadable names might be any utility.
                None if image.exe().is_none() => Value::Unknown,
                None => Value::Absent,
            },
            _ => match self.details {
                Some((details, surroundings)) => detail(field, details, surroundings),
                None => Value::Unknown,
            },
        }
    }
}

/// A field of a catalogue's entry; `None` if the field is not a property of the entry alone.
pub fn utility_value(field: Field, utility: &Utility) -> Option<Value<'_>> {
    Some(match field {
        Field::UtilityName => Value::Text(utility.name.as_bytes().into()),
        Field::UtilityCategory => Value::Text(utility.category.as_bytes().into()),
        Field::UtilityAttack => Value::Words(&utility.attack),
        Field::UtilityEveryday => Value::Flag(utility.everyday),
        _ => return None,
    })
}

fn detail<'v>(field: Field, details: &'v Details, surroundings: &'v Surroundings) -> Value<'v> {
    let uid = |index: usize| details.uids.map(|uids| uids[index]);
    let gid = |index: usize| details.gids.map(|gids| gids[index]);
    let user = |uid: Option<u32>| match uid {
        Some(uid) => {
            surroundings.users.name(uid).map_or(Value::Absent, |name| Value::Text(name.into_bytes().into()))
        }
        None => Value::Unknown,
    };
    let differs = |own: Option<u64>, host: Option<u64>| flag(own.zip(host).map(|(own, host)| own != host));
    let (own, host) = (&details.namespaces, &surroundings.namespaces);
    match field {
        Field::Comm => text(details.comm()),
        Field::Ppid => number(details.ppid),
        Field::User => user(uid(0)),
        Field::Uid => number(uid(0)),
        Field::UserEffective => user(uid(1)),
        Field::Euid => number(uid(1)),
        Field::Gid => number(gid(0)),
        Field::Egid => number(gid(1)),
        Field::LoginUser => match details.login {
            Some(login) => login.user().map_or(Value::Absent, |uid| user(Some(uid))),
            None => Value::Unknown,
        },
        Field::Loginuid => match details.login {
            Some(login) => login.user().map_or(Value::Absent, |uid| Value::Number(uid.into())),
            None => Value::Unknown,
        },
        Field::Session => number(details.session),
        Field::Tty => match details.tty_name() {
            Some(Some(name)) => Value::Text(name.into_bytes().into()),
            Some(None) => Value::Absent,
            None => Value::Unknown,
        },
        Field::Interactive => flag(details.tty.map(|device| device != 0)),
        Field::Cwd => text(details.cwd()),
        Field::Cgroup => details.cgroup().map_or(Value::Unknown, Value::Cgroups),
        Field::ParentExe => text(details.parent.exe()),
        Field::ParentName => text(details.parent.name()),
        Field::ParentCmdline => match details.parent.raw_arguments() {
            Some(raw) => Value::Text(join(raw).into()),
            None => Value::Unknown,
        },
        Field::ParentArgs => arguments(&details.parent),
        Field::NamespacePid => differs(own.pid, host.pid),
        Field::NamespaceMnt => differs(own.mnt, host.mnt),
        Field::NamespaceNet => differs(own.net, host.net),
        Field::NamespaceUser => differs(own.user, host.user),
        _ => Value::Unknown,
    }
}

fn text(bytes: Option<&[u8]>) -> Value<'_> {
    bytes.map_or(Value::Unknown, |bytes| Value::Text(bytes.into()))
}

fn number<'v>(number: Option<u32>) -> Value<'v> {
    number.map_or(Value::Unknown, |number| Value::Number(number.into()))
}

fn flag<'v>(flag: Option<bool>) -> Value<'v> {
    flag.map_or(Value::Unknown, Value::Flag)
}

fn arguments(image: &Image) -> Value<'_> {
    image.argv().map_or(Value::Unknown, |argv| Value::Arguments(argv.skip(1)))
}

/// Arguments joined with single spaces.
pub fn join(raw: &[u8]) -> Vec<u8> {
    raw.iter().map(|&byte| if byte == 0 { b' ' } else { byte }).collect()
}

/// How a number is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Order {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// What a test asks of a field.
#[derive(Debug, Clone)]
pub enum Question {
    /// A text fulfils each of these patterns; in a list, each pattern may be fulfilled by another element.
    Text(Vec<Pattern>),
    /// The number compares so with one of the values.
    Number(Order, Vec<i64>),
    /// The flag has this value.
    Flag(bool),
    /// The field is known and there is one, or not.
    Exists(bool),
}

/// A compiled test.
#[derive(Debug, Clone)]
pub struct Test {
    /// The field it reads.
    pub field: &'static FieldInfo,
    /// What it asks.
    pub question: Question,
    /// It looks at the end of a text, so that a text that was cut says nothing.
    pub at_end: bool,
}

impl Test {
    /// Puts the question to a subject.
    pub fn evaluate(&self, subject: &Subject<'_>) -> Truth {
        let value = subject.value(self.field.field);
        if matches!(value, Value::Unknown) && subject.details.is_none() && !self.field.hot {
            // The hot path has not looked yet: not even whether it exists is known.
            return Truth::Unknown;
        }
        let cut = match self.field.field {
            Field::Args | Field::Cmdline => subject.image.cut(),
            Field::ParentArgs | Field::ParentCmdline => {
                subject.details.is_some_and(|(details, _)| details.parent.cut())
            }
            _ => false,
        };
        match self.answer(&value) {
            // What was cut off might have held it, or might follow what looks like the end.
            Truth::False if cut => Truth::Unknown,
            Truth::True if cut && self.at_end => Truth::Unknown,
            answer => answer,
        }
    }

    /// Puts the question to a value.
    pub fn answer(&self, value: &Value<'_>) -> Truth {
        match (&self.question, value) {
            (Question::Exists(wanted), value) => {
                Truth::from(matches!(value, Value::Unknown | Value::Absent) != *wanted)
            }
            (_, Value::Unknown) => Truth::Unknown,
            (_, Value::Absent) => Truth::False,
            (Question::Text(patterns), value) => {
                Truth::from(patterns.iter().all(|pattern| value.any_text(|text| pattern.matches(text))))
            }
            (Question::Number(order, numbers), Value::Number(own)) => {
                let holds = |number: &i64| match order {
                    Order::Equal => own == number,
                    Order::Greater => own > number,
                    Order::GreaterOrEqual => own >= number,
                    Order::Less => own < number,
                    Order::LessOrEqual => own <= number,
                };
                Truth::from(numbers.iter().any(holds))
            }
            (Question::Flag(wanted), Value::Flag(own)) => Truth::from(own == wanted),
            // The reader of rules gives each kind of field only its own questions.
            _ => Truth::Unknown,
        }
    }
}
