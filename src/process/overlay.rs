//! Whether a file lies in the upper layer of an overlay mount: written there after the container's image was made.
//!
//! Read on the worker's thread, and only if a rule asks: the kernel makes the list of mounts under a lock that mounting
//! takes, so a listener must not wait for it.

use super::exec::Exec;
use super::parse;
use super::proc_dir::ProcRoot;

/// A longer list of mounts is not looked at.
const LONGEST_LIST: usize = 1 << 20;

/// Whether the executable lies in an upper layer. `None` is unknown: it was unlinked, or the process and its parent have
/// gone, or are in different mount namespaces.
pub fn of_executable(proc: &ProcRoot, exec: &Exec) -> Option<bool> {
    let exe = exec.image.exe()?;
    if exec.image.memfd()? {
        return Some(false);
    }
    if exec.image.deleted()? {
        return None;
    }
    let namespace = exec.details.namespaces.mnt?;
    // A process that has ended may have a parent with the same mounts.
    let list = [Some(exec.pid), exec.details.ppid].into_iter().flatten().find_map(|pid| {
        let dir = proc.process(pid).ok()?;
        let mut link = [0; 64];
        let own = dir.link(c"ns/mnt", &mut link).and_then(parse::namespace);
        if own == Some(namespace) { dir.whole_file(c"mountinfo", LONGEST_LIST) } else { None }
    })?;
    match upper_path(&list, exe)? {
        None => Some(false),
        Some(path) => {
            use std::os::unix::ffi::OsStrExt;
            let path = std::path::Path::new(std::ffi::OsStr::from_bytes(&path));
            // What the upper layer hides is a character device there, and no file.
            Some(std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file()))
        }
    }
}

/// Where a path would lie in the upper layer of its mount, by the content of mountinfo (proc_pid_mountinfo(5)): `None` if
/// it has no mount there, `Some(None)` if that is no overlay or has no upper layer.
pub fn upper_path(mountinfo: &[u8], path: &[u8]) -> Option<Option<Vec<u8>>> {
    let mounts = mountinfo.split(|&byte| byte == b'\n').filter_map(Mount::parse);
    let holds = mounts.filter_map(|mount| Some((below(&mount.point, path)?.to_vec(), mount)));
    // Of mounts at the same place the last one shows.
    let (rest, mount) = holds.max_by_key(|(_, mount)| mount.point.len())?;
    Some(mount.upper.map(|upper| [upper.as_slice(), mount.root.as_slice(), &rest].concat()))
}

struct Mount {
    point: Vec<u8>,
    /// The folder of the file system that is mounted, without a slash at the end.
    root: Vec<u8>,
    upper: Option<Vec<u8>>,
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Mount> {
        let mut fields = line.split(|&byte| byte == b' ');
        let root = unescaped(fields.by_ref().nth(3)?);
        let point = unescaped(fields.next()?);
        // After any number of optional fields: a dash, the type, the source and its options.
        let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
        let overlay = rest.next()? == b"overlay";
        let options = rest.nth(1).unwrap_or_default();
        let upper = options.split(|&byte| byte == b',').find_map(|option| option.strip_prefix(b"upperdir="));
        Some(Mount {
            point,
            root: root.strip_suffix(b"/").unwrap_or(&root).to_vec(),
            upper: upper.filter(|_| overlay).map(unescaped),
        })
    }
}

/// What follows `folder` in a path below it, with the slash.
fn below<'p>(folder: &[u8], path: &'p [u8]) -> Option<&'p [u8]> {
    if folder == b"/" {
        return path.starts_with(b"/").then_some(path);
    }
    path.strip_prefix(folder).filter(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// Undoes the octal escapes of spaces, tabs, newlines, backslashes and, in options, commas.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|_| byte == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) => {
                plain.push(escaped);
                rest = &tail[3..];
            }
            None => {
                plain.push(byte);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOUNTS: &[u8] = b"21 1 0:20 / / rw shared:1 - overlay overlay rw,lowerdir=/l,upperdir=/var/up\\040per\\054x,workdir=/w\n\
        22 21 0:5 / /proc rw - proc proc rw\n\
        23 21 0:30 /data /srv/data rw master:2 propagate_from:3 - overlay o rw,lowerdir=/l,upperdir=/u2\n\
        24 21 0:30 / /ro rw - overlay o ro,lowerdir=/l:/m\n\
        25 21 8:1 / /opt rw - ext4 /dev/sda1 rw,upperdir=/forged\n";

    fn upper(path: &str) -> Option<Option<String>> {
        upper_path(MOUNTS, path.as_bytes()).map(|path| path.map(|path| String::from_utf8(path).unwrap()))
    }

    #[test]
    fn the_deepest_mount_tells() {
        assert_eq!(upper("/usr/bin/nc"), Some(Some("/var/up per,x/usr/bin/nc".to_owned())));
        assert_eq!(upper("/srv/data/x"), Some(Some("/u2/data/x".to_owned())));
        assert_eq!(upper("/srv/database"), Some(Some("/var/up per,x/srv/database".to_owned())));
        assert_eq!(upper("/ro/bin/x"), Some(None));
        assert_eq!(upper("/opt/x"), Some(None));
        assert_eq!(upper("relative"), None);
        assert_eq!(upper_path(b"", b"/x"), None);
    }

    proptest! {
        #[test]
        fn any_list_ends(list in proptest::collection::vec(any::<u8>(), 0..300), path in "/[a-z/]{0,20}") {
            let _ = upper_path(&list, path.as_bytes());
        }
    }
}
