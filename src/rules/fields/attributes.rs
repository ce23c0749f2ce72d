//! The rows of the table of properties.

use super::{Attribute, AttributeInfo, Kind};

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
