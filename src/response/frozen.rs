//! `freeze`: the control group of the program's container or unit, in either version of control groups.
//!
//! Never the root, and never a slice: only a container's own group, or a service's or scope's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::process::place::Place;

/// Processes of a group that are looked at before it is frozen; a larger one is not frozen.
const MOST_MEMBERS: usize = 16_384;
/// Groups below one that are looked at.
const MOST_GROUPS: usize = 4096;

/// Where hierarchies that can freeze are mounted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Hierarchies {
    /// Version 2.
    unified: Option<PathBuf>,
    /// The freezer of version 1.
    freezer: Option<PathBuf>,
}

/// A group that can be frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// Its folder.
    pub(super) folder: PathBuf,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Hierarchies {
    /// As they are mounted now.
    pub(super) fn mounted() -> Self {
        fs::read_to_string("/proc/self/mountinfo").map(|text| Hierarchies::parse(&text)).unwrap_or_default()
    }

    /// Parses mountinfo (proc_pid_mountinfo(5)): whole hierarchies only.
    fn parse(mountinfo: &str) -> Self {
        let mut found = Hierarchies::default();
        for line in mountinfo.lines() {
            let Some((mount, kind)) = line.split_once(" - ") else { continue };
            let mut fields = mount.split(' ').skip(3);
            let (Some("/"), Some(place)) = (fields.next(), fields.next()) else { continue };
            let place = PathBuf::from(place.replace("\\040", " "));
            let mut kind = kind.split(' ');
            match (kind.next(), kind.nth(1)) {
                (Some("cgroup2"), _) => found.unified = found.unified.or(Some(place)),
                (Some("cgroup"), Some(options)) if options.split(',').any(|option| option == "freezer") => {
                    found.freezer = found.freezer.or(Some(place));
                }
                _ => {}
            }
        }
        found
    }

    /// The group to freeze for a program with this content of /proc/PID/cgroup; `None` if it runs in no container and no
    /// unit, or there is no hierarchy in which it does.
    pub(super) fn group(&self, cgroup: &[u8]) -> Option<Group> {
        let lines = || cgroup.split(|&byte| byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
        let in_hierarchy = |wanted: &dyn Fn(&str, &str) -> bool| {
            lines().find_map(|line| {
                let mut parts = line.splitn(3, ':');
                let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
                wanted(number, controllers).then(|| own_group(path)).flatten()
            })
        };
        let make = |root: &Option<PathBuf>, path: Option<&str>, version| {
            let folder = root.as_ref()?.join(path?.trim_start_matches('/'));
            Some(Group { folder, version }).filter(Group::can_be_frozen)
        };
        let two = in_hierarchy(&|number, controllers| number == "0" && controllers.is_empty());
        let one = in_hierarchy(&|_, controllers| controllers.split(',').any(|name| name == "freezer"));
        make(&self.unified, two, Version::Two).or_else(|| make(&self.freezer, one, Version::One))
    }
}

/// The part of a path up to the container's own group, or to the innermost service's or scope's.
fn own_group(path: &str) -> Option<&str> {
    // Seen from another namespace, a path may lead up.
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return None;
    }
    let container = Place::container_path(path);
    let unit = || {
        let mut end = None;
        let mut at = 0;
        for part in path.split('/') {
            if part.ends_with(".service") || part.ends_with(".scope") {
                end = Some(at + part.len());
            }
            at += part.len() + 1;
        }
        path.get(..end?)
    };
    container.or_else(unit).filter(|path| path.len() > 1 && !path.ends_with("/init.scope"))
}

impl Group {
    /// The group of a folder, which was frozen before.
    pub(super) fn of_folder(folder: &Path) -> Option<Group> {
        [Version::Two, Version::One]
            .into_iter()
            .map(|version| Group { folder: folder.to_owned(), version })
            .find(Group::can_be_frozen)
    }

    fn switch(&self) -> PathBuf {
        self.folder.join(match self.version {
            Version::One => "freezer.state",
            Version::Two => "cgroup.freeze",
        })
    }

    fn can_be_frozen(&self) -> bool {
        self.switch().is_file()
    }

    /// Freezes it. The kernel goes on with it by itself; what waits in the kernel is frozen when it returns.
    pub(super) fn freeze(&self) -> io::Result<()> {
        fs::write(self.switch(), if self.version == Version::One { "FROZEN" } else { "1" })
    }

    /// Lets it run again.
    pub(super) fn thaw(&self) -> io::Result<()> {
        fs::write(self.switch(), if self.version == Version::One { "THAWED" } else { "0" })
    }

    /// It is to be frozen, whether all of it is already or not.
    pub(super) fn frozen(&self) -> io::Result<bool> {
        let state = fs::read_to_string(self.switch())?;
        Ok(matches!(state.trim(), "1" | "FROZEN" | "FREEZING"))
    }

    /// The processes in it and in those below it. An error too if there are too many to look at.
    pub(super) fn members(&self) -> io::Result<Vec<u32>> {
        let too_many = || io::Error::other("more processes are in it than can be looked at");
        let mut members = Vec::new();
        let mut folders = vec![self.folder.clone()];
        let mut seen = 0;
        while let Some(folder) = folders.pop() {
            seen += 1;
            if seen > MOST_GROUPS {
                return Err(too_many());
            }
            let list = there(fs::read_to_string(folder.join("cgroup.procs")))?.unwrap_or_default();
            members.extend(list.lines().filter_map(|pid| pid.parse::<u32>().ok()));
            if members.len() > MOST_MEMBERS {
                return Err(too_many());
            }
            let below = there(fs::read_dir(&folder))?.into_iter().flatten().filter_map(Result::ok);
            folders.extend(
                below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|it| it.path()),
            );
        }
        Ok(members)
    }
}

/// `None` if it has gone meanwhile, or lists no processes: the threads of those of a group above are in it.
fn there<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(content) => Ok(Some(content)),
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_hierarchies_are_mounted() {
        let text = "25 21 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                    26 25 0:23 /docker/x /elsewhere rw - cgroup2 cgroup rw\n\
                    27 25 0:23 / /sys/fs/cgroup/unified rw,nosuid shared:4 - cgroup2 cgroup rw\n\
                    28 25 0:24 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n\
                    29 25 0:25 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        let expected = Hierarchies {
            unified: Some("/sys/fs/cgroup/unified".into()),
            freezer: Some("/sys/fs/cgroup/freezer".into()),
        };
        assert_eq!(Hierarchies::parse(text), expected);
        assert_eq!(Hierarchies::parse("x\n - cgroup2\n1 2 3 / - cgroup2"), Hierarchies::default());
    }

    #[test]
    fn containers_and_units_only() {
        const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let of = |path: &str| own_group(&path.replace("ID", ID)).map(|found| found.replace(ID, "ID"));
        assert_eq!(of("/docker/ID/system.slice/x.service").as_deref(), Some("/docker/ID"));
        assert_eq!(of("/system.slice/nginx.service").as_deref(), Some("/system.slice/nginx.service"));
        assert_eq!(
            of("/user.slice/user-1.slice/session-3.scope").as_deref(),
            Some("/user.slice/user-1.slice/session-3.scope")
        );
        assert_eq!(
            of("/user.slice/user@1.service/app.slice/app-x.scope/below").as_deref(),
            Some("/user.slice/user@1.service/app.slice/app-x.scope")
        );
        for never in
            ["/", "", "/system.slice", "/user.slice/user-1.slice", "/init.scope", "/../x.service", "/x"]
        {
            assert_eq!(of(never), None, "{never}");
        }
    }
}
