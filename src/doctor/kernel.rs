//! What the kernel was built with, as far as it tells.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Finding;

const AREA: &str = "kernel";
/// A larger configuration is not one.
const LONGEST: u64 = 4 << 20;

/// `root` is `/`, or a folder in its place.
pub(super) fn examine(root: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let release = read("proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let connector = read("proc/net/connector");
    let listed = connector.as_ref().is_some_and(|list| list.lines().any(|line| line.starts_with("cn_proc")));
    let options = options(root, release);
    let option = |name: &str| options.as_ref().map(|text| is_set(text, name));
    let rebuild = "boot a kernel that has CONFIG_CONNECTOR=y and CONFIG_PROC_EVENTS=y, as those of all large distributions";
    match (connector.is_some(), listed) {
        (_, true) => {
            findings.push(Finding::good(AREA, format!("Linux {release} has the process connector")));
        }
        (true, false) => findings.push(Finding::fatal(
            AREA,
            format!("Linux {release} was built without CONFIG_PROC_EVENTS (/proc/net/connector lists no cn_proc)"),
            rebuild,
        )),
        (false, _) if option("CONFIG_CONNECTOR") == Some(false) => findings.push(Finding::fatal(
            AREA,
            format!("Linux {release} was built without CONFIG_CONNECTOR"),
            rebuild,
        )),
        (false, _) => findings.push(Finding::fatal(
            AREA,
            "/proc/net/connector is missing: this is not the host's network namespace, or the kernel has no connector",
            "start execwatch in the host's network namespace (docker: --network host, systemd: PrivateNetwork=no)",
        )),
    }
    for (kind, inode, remedy) in [
        // The numbers are fixed in the kernel (include/linux/proc_ns.h).
        ("pid", 0xEFFF_FFFC_u32, "start execwatch in the host's pid namespace (docker: --pid host)"),
        ("user", 0xEFFF_FFFD, "start execwatch in the host's user namespace (docker: --userns host)"),
    ] {
        // Kernels before 3.8 have no such file, and no such namespaces.
        if let Ok(link) = std::fs::read_link(root.join(format!("proc/self/ns/{kind}")))
            && link.as_os_str() != format!("{kind}:[{inode}]").as_str()
        {
            let found = format!(
                "this is not the host's {kind} namespace, and the kernel ignores listeners elsewhere"
            );
            findings.push(Finding::fatal(AREA, found, remedy));
        }
    }
    if !root.join("proc/self/loginuid").exists() {
        findings.push(Finding::note(
            AREA,
            "no login user is known for programs: the kernel has no CONFIG_AUDIT or CONFIG_AUDITSYSCALL",
        ));
    }
    if read("proc/sys/kernel/osrelease").is_none() {
        findings.push(Finding::fatal(
            AREA,
            "/proc/sys cannot be read: /proc is not mounted, or without it",
            "mount -t proc proc /proc",
        ));
    }
    findings
}

/// The text of the kernel's configuration, where it can be had: from the kernel itself, else from /boot.
fn options(root: &Path, release: &str) -> Option<String> {
    let packed = root.join("proc/config.gz");
    if packed.exists() {
        let unpacked = Command::new("zcat").arg(packed).stdin(Stdio::null()).stderr(Stdio::null()).output();
        if let Ok(output) = unpacked
            && output.status.success()
        {
            return String::from_utf8(output.stdout).ok();
        }
    }
    let file = std::fs::File::open(root.join(format!("boot/config-{release}"))).ok()?;
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    Some(text)
}

fn is_set(options: &str, name: &str) -> bool {
    options.lines().any(|line| line.strip_prefix(name).is_some_and(|rest| matches!(rest, "=y" | "=m")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Level, worst};

    /// A folder with these files in the place of /.
    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    const RELEASE: (&str, &str) = ("proc/sys/kernel/osrelease", "5.10.0\n");
    const LOGIN: (&str, &str) = ("proc/self/loginuid", "4294967295");
    const LISTED: (&str, &str) = ("proc/net/connector", "Name            ID\ncn_proc         1:1\n");

    #[test]
    fn a_kernel_that_has_what_is_needed() {
        let root = host(&[RELEASE, LOGIN, LISTED]);
        let findings = examine(root.path());
        assert_eq!((findings.len(), worst(&findings)), (1, Level::Good), "{findings:?}");
        let findings = examine(host(&[RELEASE, LISTED]).path());
        assert_eq!((findings.len(), worst(&findings)), (2, Level::Note), "{findings:?}");
    }

    #[test]
    fn each_lack_has_its_own_sentence() {
        let options = ("boot/config-5.10.0", "# CONFIG_CONNECTOR is not set\n");
        for (files, said) in [
            (&[RELEASE, LOGIN][..], "network namespace"),
            (
                &[RELEASE, LOGIN, ("proc/net/connector", "Name            ID\n")][..],
                "without CONFIG_PROC_EVENTS",
            ),
            (&[RELEASE, LOGIN, options][..], "without CONFIG_CONNECTOR"),
            (&[LOGIN, LISTED][..], "/proc is not mounted"),
        ] {
            let root = host(files);
            let fatal: Vec<Finding> =
                examine(root.path()).into_iter().filter(|it| it.level == Level::Fatal).collect();
            assert_eq!(fatal.len(), 1, "{fatal:?}");
            assert!(fatal[0].found.contains(said) && fatal[0].remedy.is_some(), "{fatal:?}");
        }
        let root = host(&[RELEASE, LOGIN, LISTED]);
        std::fs::create_dir_all(root.path().join("proc/self/ns")).unwrap();
        std::os::unix::fs::symlink("pid:[4026532000]", root.path().join("proc/self/ns/pid")).unwrap();
        assert_eq!(worst(&examine(root.path())), Level::Fatal);
    }
}
