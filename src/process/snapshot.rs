//! The processes that already run: at the start of the daemon, and after losses.

use super::capture::Capture;
use super::exec::Certainty;

/// Reads every process but this one, which is given as `certainty` says: running at the start, or missed. To be called after the subscription, so that no program falls between the two; what
/// both see, the worker recognises.
///
/// Returns the number of processes looked at.
pub fn take(capture: &mut Capture, certainty: Certainty) -> procfs::ProcResult<usize> {
    let own = std::process::id();
    let mut seen = 0;
    for process in procfs::process::all_processes()? {
        // A process that has gone since the folder was listed is not worth a word.
        let Ok(process) = process else { continue };
        let pid = process.pid().unsigned_abs();
        if pid != own {
            capture.running(pid, certainty);
            seen += 1;
        }
    }
    Ok(seen)
}
