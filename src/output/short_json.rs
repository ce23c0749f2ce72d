//! JSON that fits a syslog message.

use crate::alert::{Host, Record, ecs};
use crate::process::ring::ARGUMENTS;

/// Longest line in bytes. rsyslog cuts a message at 8 KB by default, which would leave broken JSON.
pub const LONGEST: usize = 8000;

/// The line: first the arguments of ancestors are cut, then the program's own.
pub fn line(record: &Record, host: &Host) -> String {
    /// Ancestors keep at least this many bytes of arguments.
    const SHORTEST: usize = 32;
    let mut line = ecs::line(record, host);
    if let Record::FollowUp(record) = record {
        let mut record = record.clone();
        while line.len() > LONGEST && record.shorten() {
            line = ecs::line(&Record::FollowUp(record.clone()), host);
        }
        return line;
    }
    let Record::Alert(alert) = record else { return line };
    let mut alert = alert.clone();
    let mut of_ancestors = ARGUMENTS;
    while line.len() > LONGEST {
        if of_ancestors > SHORTEST {
            of_ancestors /= 2;
            alert.origin.cut_arguments(of_ancestors);
        } else {
            let kept = alert.exec.image.raw_arguments().map_or(0, <[u8]>::len) / 2;
            let parent = alert.exec.details.parent.raw_arguments().map_or(0, <[u8]>::len) / 2;
            if kept + parent == 0 {
                break;
            }
            alert.exec.image.cut_arguments(kept);
            alert.exec.details.parent.cut_arguments(parent);
        }
        line = ecs::line(&Record::Alert(alert.clone()), host);
    }
    line
}
