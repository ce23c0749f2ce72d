//! JSON that fits a syslog message.

use crate::alert::{Alert, Host, Record, RecordId, ecs};
use crate::process::ring::ARGUMENTS;

/// Longest line in bytes. rsyslog cuts a message at 8 KB by default, which would leave broken JSON.
pub const LONGEST: usize = 8000;

/// The line: first the arguments of ancestors are cut, then the program's own.
pub fn line(record: &Record, id: Option<RecordId>, host: &Host) -> String {
    let line = ecs::line(record, id, host);
    match record {
        Record::Alert(alert) => alert_line(line, alert.clone(), id, host),
        Record::FollowUp(record) => cut(line, record.clone(), |it| it.shorten(), Record::FollowUp, id, host),
        Record::Folded(record) => cut(line, record.clone(), |it| it.shorten(), Record::Folded, id, host),
        Record::Notice(_) => line,
    }
}

/// Lets a record say less until its line is short enough.
fn cut<R: Clone>(
    mut line: String,
    mut record: R,
    shorten: fn(&mut R) -> bool,
    whole: fn(R) -> Record,
    id: Option<RecordId>,
    host: &Host,
) -> String {
    while line.len() > LONGEST && shorten(&mut record) {
        line = ecs::line(&whole(record.clone()), id, host);
    }
    line
}

/// First the arguments of ancestors are cut, then the program's own.
fn alert_line(mut line: String, mut alert: Box<Alert>, id: Option<RecordId>, host: &Host) -> String {
    /// Ancestors keep at least this many bytes of arguments.
    const SHORTEST: usize = 32;
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
        line = ecs::line(&Record::Alert(alert.clone()), id, host);
    }
    line
}
