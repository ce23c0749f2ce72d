//! Signals, and the end of the process when something goes wrong.

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::connector::listeners;
use crate::connector::subscription::ignore_all;
use crate::exit;
use crate::harden;
use crate::harden::roles::Role;

/// A panic in any thread ends the process: better no daemon, which a service manager notices, than a blind one.
pub(super) fn end_process_on_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        default(panic);
        ignore_all();
        std::process::exit(exit::SOFTWARE.into());
    }));
}

pub(super) fn take_signals() -> nix::Result<SignalFd> {
    let mut taken = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGUSR1] {
        taken.add(signal);
    }
    taken.thread_block()?;
    crate::sys::signal::interrupt_on(listeners::WAKE_SIGNAL)?;
    SignalFd::with_flags(&taken, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

pub(super) fn end_at_once_on_second_signal(signal_fd: SignalFd) {
    let waiting = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        harden::enter(Role::Signals);
        loop {
            let mut waited = [PollFd::new(signal_fd.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut waited, PollTimeout::NONE);
            if let Ok(Some(taken)) = signal_fd.read_signal()
                && taken.ssi_signo != Signal::SIGUSR1 as u32
                && taken.ssi_signo != Signal::SIGHUP as u32
            {
                ignore_all();
                eprintln!("execwatch: second signal: ending at once");
                std::process::exit(exit::SOFTWARE.into());
            }
        }
    });
    if let Err(error) = waiting {
        log::debug!("a second signal will not be noticed: {error}");
    }
}
