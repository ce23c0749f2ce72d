//! Syslog servers of a test's own: rsyslogd and syslog-ng with files in the test's folder, and certificates for them.
//!
//! rsyslog and syslog-ng cannot be installed together on Debian. What is not installed is looked for in a folder into which
//! the packages were unpacked: see [`UNPACKED`].

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{installed, lacking, wait_until};

/// The variable that names the folder into which the packages rsyslog-openssl and syslog-ng-core, with the libraries of the
/// latter, were unpacked by `dpkg -x`.
const UNPACKED: &str = "EXECWATCH_TESTS_UNPACKED";

/// A server, killed when this is dropped.
pub(crate) struct Server {
    child: Child,
}

impl Server {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Server { child: command.spawn().unwrap() }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Ends it with SIGTERM and waits for that.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        wait_until("the end of a server", || self.child.try_wait().unwrap());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn unpacked() -> Option<PathBuf> {
    std::env::var_os(UNPACKED).map(PathBuf::from)
}

/// Folders below `/usr/lib` that hold `name`: that of the architecture.
fn library_folders(root: &Path, name: &str) -> Vec<PathBuf> {
    let folders = fs::read_dir(root.join("usr/lib")).into_iter().flatten().flatten();
    folders.map(|entry| entry.path().join(name)).filter(|path| path.is_dir()).collect()
}

/// Starts rsyslogd. `None`: the test is skipped, which has been said; so it is if `tls` and there is no module for that.
pub(crate) fn rsyslog(folder: &Path, configuration: &str, tls: bool) -> Option<Server> {
    let program = installed("rsyslogd")?;
    let mut modules = library_folders(Path::new("/"), "rsyslog");
    if let Some(root) = unpacked() {
        modules.extend(library_folders(&root, "rsyslog"));
    }
    if tls && !modules.iter().any(|folder| folder.join("lmnsd_ossl.so").exists()) {
        lacking(&format!("rsyslog-openssl (installed, or unpacked into the folder that {UNPACKED} names)"));
        return None;
    }
    let file = folder.join("rsyslog.conf");
    fs::write(&file, configuration).unwrap();
    let modules: Vec<String> = modules.iter().map(|folder| folder.display().to_string()).collect();
    let mut command = Command::new(program);
    command.args(["-n", "-i", "NONE", "-M", &modules.join(":"), "-f"]).arg(&file);
    Some(Server::start(&mut command, &folder.join("rsyslog.log")))
}

/// Starts syslog-ng. `None`: the test is skipped, which has been said.
pub(crate) fn syslog_ng(folder: &Path, configuration: &str) -> Option<Server> {
    let at_home =
        ["/usr/sbin/syslog-ng", "/usr/bin/syslog-ng"].iter().map(PathBuf::from).find(|path| path.exists());
    let in_folder = unpacked().map(|root| root.join("usr/sbin/syslog-ng")).filter(|path| path.exists());
    let file = folder.join("syslog-ng.conf");
    fs::write(&file, configuration).unwrap();
    let mut command = match (at_home, in_folder) {
        (Some(program), _) => Command::new(program),
        (None, Some(program)) => {
            let root = unpacked().unwrap();
            let below = |path: &str| fs::read_dir(root.join(path)).into_iter().flatten().flatten();
            // The libraries of the architecture, and syslog-ng's own.
            let libraries = below("usr/lib").chain(below("lib")).map(|entry| entry.path());
            let libraries: Vec<String> = libraries.map(|path| path.display().to_string()).collect();
            let modules = below("usr/lib/syslog-ng").map(|entry| entry.path()).find(|path| path.is_dir());
            let mut command = Command::new(program);
            command.env("LD_LIBRARY_PATH", libraries.join(":"));
            command.arg(format!("--module-path={}", modules.unwrap().display()));
            command
        }
        (None, None) => {
            lacking(&format!("syslog-ng (installed, or unpacked into the folder that {UNPACKED} names)"));
            return None;
        }
    };
    command.args(["-F", "--no-caps", "-f"]).arg(&file);
    command.arg("-R").arg(folder.join("ng.persist")).arg("-c").arg(folder.join("ng.ctl"));
    command.arg("-p").arg(folder.join("ng.pid"));
    Some(Server::start(&mut command, &folder.join("syslog-ng.log")))
}

/// A port of 127.0.0.1 that nobody uses now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Waits until a server listens.
pub(crate) fn wait_for_port(port: u16) {
    wait_until("a server that listens", || TcpStream::connect(("127.0.0.1", port)).ok());
}

/// The JSON lines in a file that a server may be writing: those that are whole.
pub(crate) fn json_lines(file: &Path) -> Vec<Value> {
    let text = fs::read(file).unwrap_or_default();
    let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let lines = text[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            serde_json::from_slice(line)
                .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(line)))
        })
        .collect()
}

/// An authority with certificates that it signs.
pub(crate) struct Authority {
    folder: PathBuf,
    name: String,
}

impl Authority {
    /// Makes `NAME.pem` in the folder. `None`: the test is skipped, which has been said.
    pub(crate) fn new(folder: &Path, name: &str) -> Option<Self> {
        installed("openssl")?;
        let authority = Authority { folder: folder.to_owned(), name: name.to_owned() };
        let (key, certificate) = (format!("{name}.key"), format!("{name}.pem"));
        authority.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            &format!("/CN={name}"),
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "keyUsage=critical,keyCertSign",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ]);
        Some(authority)
    }

    /// The authority's own certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.join(format!("{}.pem", self.name))
    }

    /// Makes a certificate for the name `host` and its key.
    pub(crate) fn sign(&self, file: &str, host: &str) -> (PathBuf, PathBuf) {
        let (key, request, certificate) =
            (format!("{file}.key"), format!("{file}.csr"), format!("{file}.pem"));
        let extensions = format!("basicConstraints=CA:FALSE\nsubjectAltName=DNS:{host}\n");
        fs::write(self.folder.join(format!("{file}.ext")), extensions).unwrap();
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            &format!("/CN={host}"),
            "-keyout",
            &key,
            "-out",
            &request,
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            &request,
            "-CA",
            &format!("{}.pem", self.name),
            "-CAkey",
            &format!("{}.key", self.name),
            "-CAcreateserial",
            "-extfile",
            &format!("{file}.ext"),
            "-out",
            &certificate,
        ]);
        (self.folder.join(certificate), self.folder.join(key))
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").args(arguments).current_dir(&self.folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
