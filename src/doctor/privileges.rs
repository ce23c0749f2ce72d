//! What this process may do.

use super::{Finding, Level};
use crate::config::Config;
use crate::response::Mode;
use crate::sys;

const AREA: &str = "privileges";
const CAP_KILL: u32 = 5;
const CAP_IPC_LOCK: u32 = sys::privilege::IPC_LOCK as u32;
const CAP_SYS_NICE: u32 = 23;

/// Capabilities by their bit (capabilities(7)), how bad it is to be without, and what lacks then.
const NEEDED: [(u32, &str, Level, &str); 6] = [
    (12, "CAP_NET_ADMIN", Level::Fatal, "process events cannot be listened to"),
    (19, "CAP_SYS_PTRACE", Level::Fatal, "executables and folders of other users' programs cannot be read"),
    (
        2,
        "CAP_DAC_READ_SEARCH",
        Level::Warning,
        "files of other users cannot be compared with installed utilities",
    ),
    (CAP_SYS_NICE, "CAP_SYS_NICE", Level::Warning, "programs are not held while they are read: best effort"),
    (
        CAP_IPC_LOCK,
        "CAP_IPC_LOCK",
        Level::Warning,
        "where the kernel takes pages of execwatch's memory away, the next program runs before it is read",
    ),
    (CAP_KILL, "CAP_KILL", Level::Warning, "responses cannot end programs of other users"),
];

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    judged(sys::privilege::effective().ok(), nix::unistd::geteuid().is_root(), config)
}

/// Whether this process may use real-time scheduling; `None` if that cannot be known.
pub(super) fn may_schedule() -> Option<bool> {
    Some(sys::privilege::effective().ok()? >> CAP_SYS_NICE & 1 == 1)
}

/// Neither the configuration nor the limits of this process ask for anything that takes this capability.
fn is_unused(bit: u32, config: &Config) -> bool {
    match bit {
        CAP_SYS_NICE => config.capture.realtime_priority == 0,
        CAP_IPC_LOCK => config.capture.realtime_priority == 0 || !sys::memory::is_limited(),
        CAP_KILL => config.response.mode != Mode::Enforce,
        _ => false,
    }
}

/// `effective`: the capabilities that there are, if that is known.
fn judged(effective: Option<u64>, root: bool, config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !root {
        findings.push(Finding::fatal(
            AREA,
            "this is not root: the processes of other users cannot be seen",
            "run execwatch as root (sudo execwatch doctor)",
        ));
        return findings;
    }
    let Some(effective) = effective else {
        findings.push(Finding::note(AREA, "the kernel does not tell which capabilities there are"));
        return findings;
    };
    for (bit, name, level, without) in NEEDED {
        if effective >> bit & 1 == 1 {
            continue;
        }
        if is_unused(bit, config) {
            findings.push(Finding::note(AREA, format!("{name} is missing; execwatch does not need it here")));
            continue;
        }
        let found = format!("{name} is missing: {without}");
        let remedy =
            format!("give it back (docker: --cap-add {}, systemd: CapabilityBoundingSet=)", &name[4..]);
        findings.push(Finding { level, ..Finding::warning(AREA, found, remedy) });
    }
    if findings.is_empty() {
        findings.push(Finding::good(AREA, "root, with every capability that is needed"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::worst;

    #[test]
    fn capabilities_are_judged_by_their_mask() {
        let mut config = Config::default();
        config.response.mode = Mode::Enforce;
        let all = 0x1ff_ffff_ffffu64;
        let of = |mask, root| judged(mask, root, &config);
        assert_eq!(worst(&of(Some(all), true)), Level::Good);
        assert_eq!(worst(&of(Some(all), false)), Level::Fatal);
        // All but CAP_SYS_NICE; all but CAP_NET_ADMIN.
        let without = |bit: u32| Some(all & !(1 << bit));
        let nice = of(without(23), true);
        assert_eq!((nice.len(), nice[0].level), (1, Level::Warning));
        assert!(
            nice[0].found.contains("best effort") && nice[0].remedy.as_ref().unwrap().contains("SYS_NICE")
        );
        assert_eq!(worst(&of(without(12), true)), Level::Fatal);
        assert_eq!(worst(&of(None, true)), Level::Note);
        assert_eq!(worst(&of(without(5), true)), Level::Warning);
        let without_lock = if sys::memory::is_limited() { Level::Warning } else { Level::Note };
        assert_eq!(worst(&of(without(14), true)), without_lock);
        // What the configuration does without is no lack.
        config.response.mode = Mode::Off;
        config.capture.realtime_priority = 0;
        for bit in [5, 14, 23] {
            let findings = judged(without(bit), true, &config);
            assert_eq!((worst(&findings), findings.len()), (Level::Note, 1), "{findings:?}");
        }
    }
}
