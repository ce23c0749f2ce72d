//! What this process may do.

use super::Finding;

const AREA: &str = "privileges";

/// Capabilities by their bit (capabilities(7)), and what lacks without each.
const NEEDED: [(u32, &str, bool, &str); 5] = [
    (12, "CAP_NET_ADMIN", true, "process events cannot be listened to"),
    (19, "CAP_SYS_PTRACE", true, "executables and folders of other users' programs cannot be read"),
    (2, "CAP_DAC_READ_SEARCH", false, "files of other users cannot be compared with installed utilities"),
    (23, "CAP_SYS_NICE", false, "programs are not held while they are read: best effort"),
    (5, "CAP_KILL", false, "responses cannot end programs of other users"),
];

pub(super) fn examine() -> Vec<Finding> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    of_status(&status, nix::unistd::geteuid().is_root())
}

fn of_status(status: &str, root: bool) -> Vec<Finding> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
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
        findings.push(Finding::note(AREA, "/proc/self/status does not tell which capabilities there are"));
        return findings;
    };
    for (bit, name, needed, without) in NEEDED {
        if effective >> bit & 1 == 1 {
            continue;
        }
        let found = format!("{name} is missing: {without}");
        let remedy =
            format!("give it back (docker: --cap-add {}, systemd: CapabilityBoundingSet=)", &name[4..]);
        findings.push(match needed {
            true => Finding::fatal(AREA, found, remedy),
            false => Finding::warning(AREA, found, remedy),
        });
    }
    if findings.is_empty() {
        findings.push(Finding::good(AREA, "root, with every capability that is needed"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Level, worst};

    #[test]
    fn capabilities_are_read_from_their_mask() {
        let of = |mask: &str, root| of_status(&format!("Name:\tx\nCapEff:\t{mask}\n"), root);
        assert_eq!(worst(&of("000001ffffffffff", true)), Level::Good);
        assert_eq!(worst(&of("000001ffffffffff", false)), Level::Fatal);
        // All but CAP_SYS_NICE; all but CAP_NET_ADMIN.
        let without = |bit: u32| format!("{:016x}", 0x1ff_ffff_ffffu64 & !(1 << bit));
        let nice = of(&without(23), true);
        assert_eq!((nice.len(), nice[0].level), (1, Level::Warning));
        assert!(
            nice[0].found.contains("best effort") && nice[0].remedy.as_ref().unwrap().contains("SYS_NICE")
        );
        assert_eq!(worst(&of(&without(12), true)), Level::Fatal);
        assert_eq!(worst(&of("zz", true)), Level::Note);
    }
}
