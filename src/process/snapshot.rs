//! The processes that already run when the daemon starts.

use super::capture::Capture;

/// Reads every process but this one. To be called after the subscription, so that no program falls between the two; what
/// both see, the worker recognises.
///
/// Returns the number of processes looked at.
pub fn take(capture: &mut Capture) -> procfs::ProcResult<usize> {
    let own = std::process::id();
    let mut seen = 0;
    for process in procfs::process::all_processes()? {
        // A process that has gone since the folder was listed is not worth a word.
        let Ok(process) = process else { continue };
        let pid = process.pid().unsigned_abs();
        if pid != own {
            capture.running(pid);
            seen += 1;
        }
    }
    Ok(seen)
}
