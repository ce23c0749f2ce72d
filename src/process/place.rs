//! Where a program runs, as its cgroup tells: container, systemd unit.

use super::parse::cgroup_paths;

/// Where a program runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The container's id: 64 hexadecimal digits, or the name where the runtime uses names (LXC, nspawn).
    pub container_id: Option<String>,
    /// What made the container; `None` if the path does not tell.
    pub runtime: Option<&'static str>,
    /// The uid of the Kubernetes pod, with dashes.
    pub pod_uid: Option<String>,
    /// The innermost systemd unit, such as `nginx.service`.
    pub unit: Option<String>,
    /// The innermost systemd slice, such as `user-1000.slice`.
    pub slice: Option<String>,
    /// The user in whose slice it is.
    pub user: Option<u32>,
}

/// Beginnings of a scope's or folder's name, with the runtime they stand for.
const PREFIXES: &[(&str, &str)] = &[
    ("docker-", "docker"),
    ("cri-containerd-", "containerd"),
    ("containerd-", "containerd"),
    ("nerdctl-", "containerd"),
    ("crio-conmon-", "cri-o"),
    ("crio-", "cri-o"),
    ("libpod-conmon-", "podman"),
    ("libpod-payload-", "podman"),
    ("libpod-", "podman"),
    ("buildah-", "buildah"),
];

/// Folders above a container's, with the runtime they stand for.
const FOLDERS: &[(&str, &str)] = &[
    ("docker", "docker"),
    ("libpod_parent", "podman"),
    ("garden", "garden"),
    ("lxc", "lxc"),
    ("lxc.payload", "lxc"),
    ("actions_job", "docker"),
    ("ecs", "docker"),
];

impl Place {
    /// Reads the content of /proc/PID/cgroup: all hierarchies, the one that tells most.
    pub fn of_cgroup(cgroup: &[u8]) -> Place {
        let mut place = Place::default();
        for path in cgroup_paths(cgroup).filter_map(|path| std::str::from_utf8(path).ok()) {
            let own = Place::of_path(path);
            place.runtime = place.runtime.or(own.runtime);
            place.container_id = place.container_id.or(own.container_id);
            place.pod_uid = place.pod_uid.or(own.pod_uid);
            place.unit = place.unit.or(own.unit);
            place.slice = place.slice.or(own.slice);
            place.user = place.user.or(own.user);
        }
        place
    }

    /// It belongs to a systemd service, and not to a session or a container's scope.
    pub fn of_service(&self) -> bool {
        self.unit.as_ref().is_some_and(|unit| unit.ends_with(".service"))
    }

    /// The part of a path up to the container's own folder; `None` outside of containers.
    pub fn container_path(path: &str) -> Option<&str> {
        let mut end = None;
        let mut folder = "";
        let mut at = 0;
        for part in path.split('/') {
            if !part.is_empty() {
                if container(folder, part).is_some() {
                    end = Some(at + part.len());
                }
                folder = part;
            }
            at += part.len() + 1;
        }
        path.get(..end?)
    }

    fn of_path(path: &str) -> Place {
        let mut place = Place::default();
        let mut folder = "";
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if let Some((id, runtime)) = container(folder, part) {
                place.container_id = Some(id);
                // Below Docker's folder may stand another runtime's own cgroup.
                place.runtime = runtime.or(place.runtime);
            }
            let unit = part.ends_with(".service") || part.ends_with(".scope") || part.ends_with(".socket");
            if unit {
                place.unit = Some(unescaped(part));
            }
            if part.ends_with(".slice") {
                place.slice = Some(unescaped(part));
                let user = part.strip_prefix("user-").and_then(|rest| rest.strip_suffix(".slice"));
                place.user = user.and_then(|uid| uid.parse().ok()).or(place.user);
            }
            place.pod_uid = pod_uid(part).or(place.pod_uid);
            folder = part;
        }
        place
    }
}

/// The container that a folder of a cgroup path stands for.
fn container(folder: &str, part: &str) -> Option<(String, Option<&'static str>)> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    // systemd-nspawn names the machine; the dash of a name is escaped.
    if let Some(machine) = name.strip_prefix("machine-").filter(|_| part.ends_with(".scope")) {
        if let Some(pod) = machine.strip_prefix("libpod\\x2d") {
            return Some((pod.to_owned(), Some("podman")));
        }
        return Some((unescaped(machine), Some("nspawn")));
    }
    if let Some(machine) = part.strip_prefix("systemd-nspawn@").and_then(|name| name.strip_suffix(".service"))
    {
        return Some((unescaped(machine), Some("nspawn")));
    }
    for (prefix, runtime) in [("lxc.payload.", "lxc"), ("lxc.monitor.", "lxc")] {
        if let Some(name) = part.strip_prefix(prefix) {
            return Some((name.to_owned(), Some(runtime)));
        }
    }
    for (prefix, runtime) in PREFIXES {
        if let Some(id) = name.strip_prefix(prefix).filter(|id| is_id(id)) {
            return Some((id.to_owned(), Some(runtime)));
        }
    }
    // `kubepods...slice:cri-containerd:ID`: containerd with the cgroupfs driver but systemd's form of names.
    if let Some((rest, id)) = name.rsplit_once(':').filter(|(_, id)| is_id(id)) {
        let runtime = if rest.ends_with("cri-containerd") { Some("containerd") } else { None };
        return Some((id.to_owned(), runtime));
    }
    let known = FOLDERS.iter().find(|(name, _)| *name == folder).map(|&(_, runtime)| runtime);
    match known {
        Some("lxc") => Some((name.to_owned(), known)),
        // Garden's ids are UUIDs and names.
        Some("garden") => Some((name.to_owned(), known)),
        _ if is_id(name) => Some((name.to_owned(), known)),
        _ => None,
    }
}

/// The uid in a pod's folder: `pod01234567-...` with the cgroupfs driver, `kubepods-burstable-pod01234567_....slice` with
/// systemd's, which escapes dashes by underscores. In containerd's `SLICE:cri-containerd:ID` the slice comes first.
fn pod_uid(part: &str) -> Option<String> {
    let slice = part.split(':').next().unwrap_or(part);
    let name = slice.strip_suffix(".slice").unwrap_or(slice);
    let uid = match name.strip_prefix("kubepods-") {
        Some(rest) => rest.rsplit('-').next()?.strip_prefix("pod")?,
        None => name.strip_prefix("pod")?,
    };
    // A static pod's is the hash of its manifest.
    let good = uid.len() >= 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || b"-_".contains(&byte));
    good.then(|| uid.replace('_', "-"))
}

/// 64 hexadecimal digits, as the OCI runtimes' managers make them.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
}

/// Undoes systemd's escapes such as `\x2d` (systemd-escape(1)).
fn unescaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find("\\x") {
        text.push_str(&rest[..at]);
        let digits = rest.get(at + 2..at + 4).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match digits.filter(u8::is_ascii) {
            Some(byte) => {
                text.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                text.push_str("\\x");
                rest = &rest[at + 2..];
            }
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn of(line: &str) -> (Option<String>, Option<&'static str>, Option<String>) {
        let place = Place::of_cgroup(line.replace("ID", ID).as_bytes());
        (
            place.container_id.map(|id| id.replace(ID, "ID")),
            place.runtime,
            place.unit.map(|unit| unit.replace(ID, "ID")),
        )
    }

    #[test]
    fn the_path_of_a_container() {
        let path =
            |path: &str| Place::container_path(&path.replace("ID", ID)).map(|found| found.replace(ID, "ID"));
        assert_eq!(path("/docker/ID/system.slice/cron.service").as_deref(), Some("/docker/ID"));
        assert_eq!(path("/machine.slice/libpod-ID.scope").as_deref(), Some("/machine.slice/libpod-ID.scope"));
        assert_eq!(path("/system.slice/cron.service"), None);
    }

    #[test]
    fn pods_and_slices() {
        let expect = |line: &str, pod: Option<&str>, slice: Option<&str>| {
            let place = Place::of_cgroup(line.replace("ID", ID).as_bytes());
            assert_eq!((place.pod_uid.as_deref(), place.slice.as_deref()), (pod, slice), "{line}");
        };
        let uid = Some("01234567-89ab-cdef-0123-456789abcdef");
        expect("4:cpu:/kubepods/burstable/pod01234567-89ab-cdef-0123-456789abcdef/ID", uid, None);
        let slice = "kubepods-burstable-pod01234567_89ab_cdef_0123_456789abcdef.slice";
        expect(
            &format!("0::/kubepods.slice/kubepods-burstable.slice/{slice}/cri-containerd-ID.scope"),
            uid,
            Some(slice),
        );
        expect(
            &format!("0::/system.slice/containerd.service/{slice}:cri-containerd:ID"),
            uid,
            Some("system.slice"),
        );
        expect("0::/user.slice/user-1000.slice/session-3.scope", None, Some("user-1000.slice"));
        expect("0::/podman/podcast", None, None);
    }

    #[test]
    fn paths_of_each_runtime() {
        let expect = |line: &str, id: Option<&str>, runtime: Option<&'static str>, unit: Option<&str>| {
            assert_eq!(of(line), (id.map(str::to_owned), runtime, unit.map(str::to_owned)), "{line}");
        };
        let id = Some("ID");
        expect("0::/system.slice/nginx.service", None, None, Some("nginx.service"));
        expect("0::/user.slice/user-1000.slice/session-3.scope", None, None, Some("session-3.scope"));
        expect("0::/", None, None, None);
        expect("12:cpu:/docker/ID", id, Some("docker"), None);
        expect("0::/system.slice/docker-ID.scope", id, Some("docker"), Some("docker-ID.scope"));
        expect("4:cpu:/kubepods/burstable/pod01234567-89ab-cdef-0123-456789abcdef/ID", id, None, None);
        expect(
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod01_2.slice/cri-containerd-ID.scope",
            id,
            Some("containerd"),
            Some("cri-containerd-ID.scope"),
        );
        expect(
            "0::/kubepods.slice/kubepods-pod1.slice/crio-ID.scope",
            id,
            Some("cri-o"),
            Some("crio-ID.scope"),
        );
        expect(
            "0::/system.slice/containerd.service/kubepods-besteffort-pod1.slice:cri-containerd:ID",
            id,
            Some("containerd"),
            Some("containerd.service"),
        );
        expect("0::/machine.slice/libpod-ID.scope/container", id, Some("podman"), Some("libpod-ID.scope"));
        expect(
            "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
            id,
            Some("podman"),
            Some("libpod-ID.scope"),
        );
        expect("0::/libpod_parent/libpod-ID", id, Some("podman"), None);
        expect("0::/lxc/web1", Some("web1"), Some("lxc"), None);
        expect("0::/lxc.payload.web1/init.scope", Some("web1"), Some("lxc"), Some("init.scope"));
        expect(
            "0::/machine.slice/systemd-nspawn@deb.service/payload",
            Some("deb"),
            Some("nspawn"),
            Some("systemd-nspawn@deb.service"),
        );
        expect(
            "0::/machine.slice/machine-my\\x2dbox.scope",
            Some("my-box"),
            Some("nspawn"),
            Some("machine-my-box.scope"),
        );
        expect("3:memory:/garden/12-ab", Some("12-ab"), Some("garden"), None);
        expect(
            "1:name=systemd:/docker/ID/system.slice/cron.service\n0::/\n",
            id,
            Some("docker"),
            Some("cron.service"),
        );
    }
}
