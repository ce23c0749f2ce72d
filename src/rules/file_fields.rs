//! The fields of the executable's file.

use super::fields::Attribute;
use super::subject::Surroundings;
use super::value::Value;
use crate::identity::contents::hexadecimal;
use crate::process::exec::Exec;
use crate::process::file::FileFacts;
use crate::process::names::Names;

/// Set-user-id and set-group-id bits (inode(7)).
const SET_USER_ID: u32 = 0o4000;
const SET_GROUP_ID: u32 = 0o2000;
/// Without the right to execute it, the group bit means mandatory locking.
const GROUP_EXECUTES: u32 = 0o0010;

/// A field of the executable's file; `None` if the field is none. The exec happened at `time_ns`.
pub(super) fn of_file<'v>(
    attribute: Attribute,
    exec: &'v Exec,
    surroundings: &'v Surroundings,
    time_ns: u64,
) -> Option<Value<'v>> {
    let file = exec.file.as_ref();
    let flag = |flag: fn(&FileFacts) -> bool| Value::flag(file.map(flag));
    // The clock may have been set back since, or the file's time forward: then it is less than nothing.
    let age = |stamp: fn(&FileFacts) -> i64| {
        let now = i64::try_from(time_ns).unwrap_or(i64::MAX);
        Value::number(file.map(|file| now.saturating_sub(stamp(file)).div_euclid(1_000_000_000)))
    };
    Some(match attribute {
        Attribute::ExeSize => Value::number(file.map(|file| i64::try_from(file.size).unwrap_or(i64::MAX))),
        Attribute::ExeLinks => Value::number(file.map(|file| file.links)),
        Attribute::ExeAge => age(|file| file.modified_ns),
        Attribute::ExeChanged => age(|file| file.changed_ns),
        Attribute::ExeMode => Value::number(file.map(FileFacts::permissions)),
        Attribute::ExeSetuid => flag(|file| file.mode & SET_USER_ID != 0),
        Attribute::ExeSetgid => {
            flag(|file| file.mode & (SET_GROUP_ID | GROUP_EXECUTES) == SET_GROUP_ID | GROUP_EXECUTES)
        }
        // An exec that was written down brings the names of its users along, but not those of its file.
        Attribute::ExeOwner | Attribute::ExeGroup if exec.details.names.is_some() => Value::Unknown,
        Attribute::ExeOwner => name(file.map(|file| file.uid), &surroundings.accounts.users),
        Attribute::ExeGroup => name(file.map(|file| file.gid), &surroundings.accounts.groups),
        Attribute::ExeSha256 => match surroundings.files.sha256(exec) {
            Some(digest) => Value::name(hexadecimal(&digest)),
            None => Value::Unknown,
        },
        Attribute::ExePackageManaged => Value::flag(surroundings.files.packages.manage(exec)),
        _ => return None,
    })
}

/// A name, or the number of what has none.
fn name<'v>(id: Option<u32>, names: &Names) -> Value<'v> {
    id.map_or(Value::Unknown, |id| Value::name(names.name(id).unwrap_or_else(|| id.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::details::Namespaces;
    use crate::process::names::Accounts;
    use crate::process::relatives::NoProcesses;

    #[test]
    fn each_field_and_the_unknown() {
        let surroundings = Surroundings {
            accounts: Accounts { users: Names::new("/etc/passwd"), groups: Names::new("/dev/null") },
            namespaces: Namespaces::default(),
            processes: Box::new(NoProcesses),
            files: Default::default(),
        };
        let file = FileFacts {
            device: (8, 1),
            inode: 7,
            mode: 0o106_754,
            links: 2,
            uid: 0,
            gid: 77,
            size: 1234,
            modified_ns: 5_000_000_000,
            changed_ns: 9_500_000_000,
            mount: None,
        };
        let exec = Exec { file: Some(file), ..Exec::default() };
        let shown = |attribute, exec: &Exec| {
            let value = of_file(attribute, exec, &surroundings, 9_000_000_000).unwrap();
            String::from_utf8(value.display().into_owned()).unwrap()
        };
        for (attribute, expected) in [
            (Attribute::ExeSize, "1234"),
            (Attribute::ExeLinks, "2"),
            (Attribute::ExeAge, "4"),
            (Attribute::ExeChanged, "-1"),
            (Attribute::ExeMode, &0o6754.to_string()),
            (Attribute::ExeSetuid, "true"),
            (Attribute::ExeSetgid, "true"),
            (Attribute::ExeOwner, "root"),
            (Attribute::ExeGroup, "77"),
            (Attribute::ExeSha256, "unknown"),
            (Attribute::ExePackageManaged, "unknown"),
        ] {
            assert_eq!(shown(attribute, &exec), expected, "{attribute:?}");
            assert_eq!(shown(attribute, &Exec::default()), "unknown", "{attribute:?}");
        }
        let locking = Exec { file: Some(FileFacts { mode: 0o102_644, ..file }), ..Exec::default() };
        assert_eq!(shown(Attribute::ExeSetgid, &locking), "false");
        assert!(of_file(Attribute::Pid, &exec, &surroundings, 0).is_none());
    }
}
