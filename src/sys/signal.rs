//! A signal that only interrupts.

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

extern "C" fn nothing(_: libc::c_int) {}

/// Makes `signal` interrupt a blocking system call of the thread that gets it, and nothing else.
pub fn interrupt_on(signal: Signal) -> nix::Result<()> {
    // No SA_RESTART: the call must return with EINTR.
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, so it is safe in any thread at any time.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}
