//! Waiting with a deadline, and an end in good order: a signal to end makes every wait fail, so that whatever was started
//! is ended by its guard.

use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use crate::Result;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(5);

fn ending_signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

/// Takes the signals that would end the process.
pub(crate) fn take_signals() -> Result<()> {
    ending_signals().thread_block()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(|| {
        while ending_signals().wait().is_ok() {
            INTERRUPTED.store(true, Relaxed);
        }
    })?;
    Ok(())
}

/// True once the process was told to end.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Relaxed)
}

/// Fails once the process was told to end.
pub(crate) fn check() -> Result<()> {
    if interrupted() { Err("interrupted".into()) } else { Ok(()) }
}

/// Starts a program that takes signals as usual: a child inherits the mask.
pub(crate) fn spawn(command: &mut Command) -> Result<Child> {
    check()?;
    ending_signals().thread_unblock()?;
    let spawned = command.spawn();
    ending_signals().thread_block()?;
    spawned.map_err(|error| format!("cannot run {}: {error}", command.get_program().display()).into())
}

/// Waits until `happened`, at most for `limit`.
pub(crate) fn wait_until(
    what: &str,
    limit: Duration,
    mut happened: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !happened()? {
        check()?;
        if Instant::now() > deadline {
            return Err(format!("waited {} s in vain until {what}", limit.as_secs()).into());
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Sleeps.
pub(crate) fn sleep(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        check()?;
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
    Ok(())
}
