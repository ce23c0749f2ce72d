//! Tells the service manager how it goes: the protocol of sd_notify(3), which is a datagram to the socket that
//! NOTIFY_SOCKET names. Without that variable nothing is told.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Mutex;
use std::time::Duration;

use crate::clock;

/// Longest text after `STATUS=`, in characters; systemctl shows one line of it.
const LONGEST_STATUS: usize = 200;

/// The way to the service manager.
#[derive(Debug)]
pub(super) struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    /// The last `STATUS=`: said again only if it changes.
    status: Mutex<String>,
}

impl Notifier {
    /// Takes the variables that a service manager sets.
    pub(super) fn from_environment() -> Self {
        let variable = |name| std::env::var_os(name);
        let own = std::process::id();
        Self::new(
            variable("NOTIFY_SOCKET").as_deref(),
            variable("WATCHDOG_USEC").as_deref(),
            variable("WATCHDOG_PID").as_deref(),
            own,
        )
    }

    fn new(place: Option<&OsStr>, watchdog: Option<&OsStr>, watched: Option<&OsStr>, own: u32) -> Self {
        let socket = place.filter(|place| !place.is_empty()).and_then(|place| match connect(place) {
            Ok(connected) => Some(connected),
            Err(error) => {
                log::warn!("the service manager cannot be told how it goes: {}: {error}", place.display());
                None
            }
        });
        let number = |text: &OsStr| text.to_str()?.parse::<u64>().ok();
        // The variables may be inherited from whoever started execwatch and be meant for that one.
        let meant = watched.is_none_or(|pid| number(pid) == Some(own.into()));
        let watchdog = watchdog.and_then(number).filter(|&micros| micros > 0 && meant && socket.is_some());
        Notifier { socket, watchdog: watchdog.map(Duration::from_micros), status: Mutex::default() }
    }

    /// How often `WATCHDOG=1` is to be told; `None` if nobody waits for it.
    pub(super) fn watchdog_every(&self) -> Option<Duration> {
        // sd_watchdog_enabled(3): half of the time after which the service manager acts.
        self.watchdog.map(|limit| limit / 2)
    }

    /// It listens.
    pub(super) fn ready(&self) {
        self.send("READY=1");
    }

    /// It is alive.
    pub(super) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// It reads its configuration anew.
    pub(super) fn reloading(&self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic_ns() / 1000));
    }

    /// It is ending.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// How it goes, in a line; told only if it changed.
    pub(super) fn status(&self, text: &str) {
        let line: String =
            text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_STATUS).collect();
        let mut last = self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *last != line {
            self.send(&format!("STATUS={line}"));
            *last = line;
        }
    }

    fn send(&self, message: &str) {
        let Some((socket, address)) = &self.socket else { return };
        // It does not wait: a service manager that takes nothing must not stop the daemon's watch.
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            log::debug!("the service manager was not told «{message}»: {error}");
        }
    }
}

fn connect(place: &OsStr) -> std::io::Result<(UnixDatagram, SocketAddr)> {
    let address = match place.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        Some((b'/', _)) => SocketAddr::from_pathname(place)?,
        _ => {
            let message = "NOTIFY_SOCKET holds neither a path nor an abstract name";
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, message));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(place: &str, watchdog: &str, watched: Option<&str>) -> Notifier {
        Notifier::new(Some(place.as_ref()), Some(watchdog.as_ref()), watched.map(AsRef::as_ref), 7)
    }

    #[test]
    fn both_kinds_of_sockets_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("execwatch-test-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, place) in [(by_path, path.display().to_string()), (by_name, format!("@{name}"))] {
            let notifier = new(&place, "3000000", Some("7"));
            assert_eq!(notifier.watchdog_every(), Some(Duration::from_millis(1500)));
            notifier.ready();
            notifier.status("all\nwell");
            notifier.status("all\nwell");
            notifier.reloading();
            notifier.alive();
            notifier.stopping();
            let mut buffer = [0; 256];
            let mut next = || {
                let length = socket.recv(&mut buffer).unwrap();
                String::from_utf8_lossy(&buffer[..length]).into_owned()
            };
            assert_eq!(next(), "READY=1");
            assert_eq!(next(), "STATUS=all well");
            let reloading = next();
            let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
            assert!(time.parse::<u64>().unwrap() <= clock::monotonic_ns() / 1000);
            assert_eq!(next(), "WATCHDOG=1");
            assert_eq!(next(), "STOPPING=1");
        }
    }

    #[test]
    fn what_is_meant_for_another_or_is_wrong_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let _socket = UnixDatagram::bind(&path).unwrap();
        let place = path.display().to_string();
        assert!(new(&place, "3000000", None).watchdog_every().is_some());
        assert_eq!(new(&place, "3000000", Some("8")).watchdog_every(), None);
        assert_eq!(new(&place, "0", None).watchdog_every(), None);
        assert_eq!(new(&place, "soon", None).watchdog_every(), None);
        for wrong in ["", "relative", "/nowhere/at/all", &format!("/{}", "x".repeat(200))] {
            let notifier = new(wrong, "3000000", None);
            notifier.ready();
            notifier.status("nobody hears it");
        }
        assert_eq!(new("", "3000000", None).watchdog_every(), None);
    }

    /// A service manager that reads nothing must not stop the daemon.
    #[test]
    fn a_full_socket_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let _socket = UnixDatagram::bind(&path).unwrap();
        let notifier = new(&path.display().to_string(), "1", None);
        (0..2000).for_each(|_| notifier.alive());
    }
}
