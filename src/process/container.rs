//! What a container's runtime calls it: name and image, and its pod.
//!
//! In: where a program runs, as its cgroup tells. Out: what the state files of Docker, containerd, CRI-O and Podman say of
//! that container. No runtime is asked, so none need run. Files are read by the worker, once for each container, and
//! within limits: a user's own containers are described by files of that user.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::place::Place;

/// Bytes of a state file; a larger one is not read.
const LARGEST: u64 = 4 << 20;
/// Bytes kept of a name.
const LONGEST: usize = 256;
/// Containers remembered; when there are more, all are forgotten.
const MOST: usize = 1024;
/// Namespaces of containerd that are looked into.
const MOST_NAMESPACES: usize = 16;
/// When a container of which nothing was found is looked for again: its files may have been written since.
const AGAIN: Duration = Duration::from_secs(5);

/// What is told of a container. `None` is unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Named {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The image it was made of, as it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Its pod's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    /// Its pod's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_namespace: Option<String>,
}

impl Named {
    /// Nothing is told.
    pub fn is_empty(&self) -> bool {
        *self == Named::default()
    }

    fn some(mut self) -> Option<Self> {
        for text in [&mut self.name, &mut self.image, &mut self.pod_name, &mut self.pod_namespace] {
            if let Some(text) = text {
                let end = (0..=LONGEST.min(text.len())).rfind(|&end| text.is_char_boundary(end));
                text.truncate(end.unwrap_or_default());
            }
            text.take_if(|text| text.is_empty());
        }
        Some(self).filter(|named| !named.is_empty())
    }
}

/// The containers of this host, as far as anybody asked.
#[derive(Debug)]
pub struct Containers {
    root: PathBuf,
    known: Mutex<HashMap<String, Found>>,
}

/// What was found of a container, and when.
type Found = (Instant, Option<Arc<Named>>);

impl Containers {
    /// Those whose state is below a folder: `/` on a host.
    pub fn new(root: &Path) -> Self {
        Containers { root: root.to_owned(), known: Mutex::default() }
    }

    /// What is told of the container where a program runs; `None` outside of one, or if nothing is.
    pub fn of(&self, place: &Place) -> Option<Arc<Named>> {
        let id = place.container_id.as_deref()?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read, named)) = known.get(id)
            && (named.is_some() || read.elapsed() < AGAIN)
        {
            return named.clone();
        }
        let named = self.read(id, place).map(Arc::new);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(id.to_owned(), (Instant::now(), named.clone()));
        named
    }

    fn read(&self, id: &str, place: &Place) -> Option<Named> {
        // These have no other id than their name.
        if matches!(place.runtime, Some("lxc" | "nspawn")) {
            return Named { name: Some(id.to_owned()), ..Named::default() }.some();
        }
        // It becomes a part of paths.
        if id.len() != 64 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let storage = self.root.join("var/lib/containers/storage");
        let run = self.root.join("run/containers/storage");
        let docker = || self.docker(id);
        let containerd = || self.containerd(id);
        let crio =
            || annotations(&run.join(format!("overlay-containers/{id}/userdata/config.json")))?.named();
        let podman = || podman(&storage, id).or_else(|| podman(&self.rootless(place)?, id));
        match place.runtime {
            Some("docker") => docker(),
            Some("containerd") => containerd(),
            Some("cri-o") => crio(),
            Some("podman" | "buildah") => podman(),
            // Kubernetes' folders do not tell whose they are.
            _ => docker().or_else(containerd).or_else(crio).or_else(podman),
        }
    }

    /// /var/lib/docker/containers/ID/config.v2.json
    fn docker(&self, id: &str) -> Option<Named> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Container {
            name: Option<String>,
            config: Option<Config>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Config {
            image: Option<String>,
            labels: Option<HashMap<String, String>>,
        }
        let file = self.root.join(format!("var/lib/docker/containers/{id}/config.v2.json"));
        let container: Container = json(&file)?;
        let (image, labels) = container.config.map_or((None, None), |config| (config.image, config.labels));
        let mut labels = labels.unwrap_or_default();
        Named {
            name: labels
                .remove("io.kubernetes.container.name")
                .or_else(|| container.name.map(|name| name.trim_start_matches('/').to_owned())),
            image,
            pod_name: labels.remove("io.kubernetes.pod.name"),
            pod_namespace: labels.remove("io.kubernetes.pod.namespace"),
        }
        .some()
    }

    /// /run/containerd/io.containerd.runtime.v2.task/NAMESPACE/ID/config.json
    fn containerd(&self, id: &str) -> Option<Named> {
        let tasks = self.root.join("run/containerd/io.containerd.runtime.v2.task");
        let namespaces = std::fs::read_dir(tasks).ok()?.take(MOST_NAMESPACES).filter_map(Result::ok);
        let mut files = namespaces.map(|namespace| namespace.path().join(id).join("config.json"));
        files.find_map(|file| annotations(&file)?.named())
    }

    /// The storage of the user in whose slice a container runs.
    fn rootless(&self, place: &Place) -> Option<PathBuf> {
        let uid = place.user?.to_string();
        let accounts = File::open(self.root.join("etc/passwd")).ok()?;
        let mut text = String::new();
        accounts.take(LARGEST).read_to_string(&mut text).ok()?;
        let home = text.lines().find_map(|line| {
            let mut columns = line.split(':');
            (columns.nth(2)? == uid).then(|| columns.nth(2))?
        })?;
        Some(self.root.join(home.trim_start_matches('/')).join(".local/share/containers/storage"))
    }
}

/// The annotations of an OCI runtime's configuration (config.json).
#[derive(Deserialize)]
struct Annotations {
    #[serde(default)]
    annotations: HashMap<String, String>,
}

impl Annotations {
    /// As containerd, nerdctl and CRI-O write them.
    fn named(mut self) -> Option<Named> {
        let mut first = |keys: &[&str]| keys.iter().find_map(|&key| self.annotations.remove(key));
        Named {
            name: first(&[
                "io.kubernetes.cri.container-name",
                "io.kubernetes.container.name",
                "nerdctl/name",
                "io.kubernetes.cri-o.Name",
            ]),
            image: first(&["io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"]),
            pod_name: first(&["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"]),
            pod_namespace: first(&["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"]),
        }
        .some()
    }
}

fn annotations(file: &Path) -> Option<Annotations> {
    json(file)
}

/// containers.json of containers/storage, and the one of those that a restart of the host ends.
fn podman(storage: &Path, id: &str) -> Option<Named> {
    #[derive(Deserialize)]
    struct Container {
        id: String,
        #[serde(default)]
        names: Vec<String>,
        #[serde(default)]
        metadata: String,
    }
    /// JSON within JSON.
    #[derive(Deserialize, Default)]
    struct Metadata {
        #[serde(rename = "image-name")]
        image_name: Option<String>,
    }
    ["containers.json", "volatile-containers.json"].iter().find_map(|name| {
        let all: Vec<Container> = json(&storage.join("overlay-containers").join(name))?;
        let mut container = all.into_iter().find(|container| container.id == id)?;
        let metadata: Metadata = serde_json::from_slice(container.metadata.as_bytes()).unwrap_or_default();
        let name = (!container.names.is_empty()).then(|| container.names.swap_remove(0));
        Named { name, image: metadata.image_name, ..Named::default() }.some()
    })
}

/// Reads a state file; `None` if it is not there, too large, or not as expected. A user may have put anything in its
/// place: no link at its end is followed, and nothing waits for the writer of a pipe.
fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    if !file.metadata().is_ok_and(|status| status.is_file() && status.len() <= LARGEST) {
        log::debug!("{}: no regular file of at most {LARGEST} bytes", path.display());
        return None;
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes)
        .map_err(|error| log::debug!("{}: not as expected of a runtime: {error}", path.display()))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// What is told of a container when these files are there.
    fn told(files: &[(&str, &str)], cgroup: &str) -> [Option<String>; 4] {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path.replace("ID", ID));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text.replace("ID", ID)).unwrap();
        }
        let place = Place::of_cgroup(cgroup.replace("ID", ID).as_bytes());
        let named = Containers::new(folder.path()).of(&place).map_or(Named::default(), |it| (*it).clone());
        [named.name, named.image, named.pod_name, named.pod_namespace]
    }

    fn expect(files: &[(&str, &str)], cgroup: &str, expected: [&str; 4]) {
        let expected = expected.map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()));
        assert_eq!(told(files, cgroup), expected, "{cgroup}");
    }

    #[test]
    fn each_runtime_tells_in_its_way() {
        let docker = "var/lib/docker/containers/ID/config.v2.json";
        let own = r#"{"ID":"ID","Name":"/web","Config":{"Image":"nginx:1.27","Labels":{}},"Other":[1]}"#;
        expect(&[(docker, own)], "0::/system.slice/docker-ID.scope", ["web", "nginx:1.27", "", ""]);
        let kubernetes = r#"{"Name":"/k8s_web_a","Config":{"Image":"nginx@sha256:0","Labels":{
            "io.kubernetes.container.name":"web","io.kubernetes.pod.name":"shop-7","io.kubernetes.pod.namespace":"prod"}}}"#;
        let pod = "4:cpu:/kubepods/burstable/pod01234567-89ab-cdef-0123-456789abcdef/ID";
        expect(&[(docker, kubernetes)], pod, ["web", "nginx@sha256:0", "shop-7", "prod"]);
        let cri = r#"{"ociVersion":"1.2.0","annotations":{"io.kubernetes.cri.container-name":"web",
            "io.kubernetes.cri.image-name":"docker.io/library/nginx:1.27","io.kubernetes.cri.sandbox-name":"shop-7",
            "io.kubernetes.cri.sandbox-namespace":"prod"}}"#;
        let containerd = "run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json";
        let expected = ["web", "docker.io/library/nginx:1.27", "shop-7", "prod"];
        expect(
            &[(containerd, cri)],
            "0::/kubepods.slice/kubepods-podx.slice/cri-containerd-ID.scope",
            expected,
        );
        expect(&[(containerd, cri)], pod, expected);
        let crio = r#"{"annotations":{"io.kubernetes.container.name":"web","io.kubernetes.cri-o.ImageName":
            "quay.io/nginx:1","io.kubernetes.pod.name":"shop-7","io.kubernetes.pod.namespace":"prod"}}"#;
        expect(
            &[("run/containers/storage/overlay-containers/ID/userdata/config.json", crio)],
            "0::/kubepods.slice/kubepods-podx.slice/crio-ID.scope",
            ["web", "quay.io/nginx:1", "shop-7", "prod"],
        );
        let podman = r#"[{"id":"other","names":["x"]},{"id":"ID","names":["db"],"image":"ff",
            "metadata":"{\"image-name\":\"docker.io/library/postgres:17\",\"name\":\"db\"}"}]"#;
        let expected = ["db", "docker.io/library/postgres:17", "", ""];
        let storage = "containers/storage/overlay-containers/containers.json";
        expect(&[(&format!("var/lib/{storage}"), podman)], "0::/machine.slice/libpod-ID.scope", expected);
        expect(
            &[
                (&format!("home/ann/.local/share/{storage}"), podman),
                ("etc/passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1000:Ann:/home/ann:/bin/sh\n"),
            ],
            "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
            expected,
        );
        expect(&[], "0::/lxc.payload.web1/init.scope", ["web1", "", "", ""]);
        expect(&[], "0::/machine.slice/machine-my\\x2dbox.scope", ["my-box", "", "", ""]);
    }

    #[test]
    fn what_is_not_as_expected_tells_nothing() {
        let docker = "var/lib/docker/containers/ID/config.v2.json";
        let cgroup = "0::/system.slice/docker-ID.scope";
        for text in
            ["", "{", "[]", "null", "{\"Name\":7}", "{\"Config\":{\"Labels\":[]}}", "{\"Name\":\"\"}", "{}"]
        {
            expect(&[(docker, text)], cgroup, [""; 4]);
        }
        expect(&[], cgroup, [""; 4]);
        expect(&[(docker, "{\"Name\":\"x\"}")], "0::/garden/../../etc", [""; 4]);
        let long = format!("{{\"Name\":\"{}\"}}", "ä".repeat(LONGEST));
        assert_eq!(told(&[(docker, &long)], cgroup)[0].as_ref().unwrap().len(), LONGEST);
        let large = format!("{{\"Name\":\"x\"{}}}", " ".repeat(LARGEST as usize));
        expect(&[(docker, &large)], cgroup, [""; 4]);
    }

    #[test]
    fn a_pipe_or_a_link_in_the_place_of_a_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(json::<serde_json::Value>(&path).is_none());
        let target = folder.path().join("target");
        std::fs::write(&target, "{}").unwrap();
        assert!(json::<serde_json::Value>(&target).is_some());
        std::os::unix::fs::symlink(&target, folder.path().join("link")).unwrap();
        assert!(json::<serde_json::Value>(&folder.path().join("link")).is_none());
    }

    #[test]
    fn containers_beyond_the_limit_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let containers = Containers::new(folder.path());
        for number in 0..MOST + 10 {
            let place = Place { container_id: Some(format!("{number:064x}")), ..Place::default() };
            assert_eq!(containers.of(&place), None);
        }
        assert!(containers.known.lock().unwrap().len() <= MOST);
    }
}
