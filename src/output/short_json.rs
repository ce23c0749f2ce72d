//! JSON that fits a syslog message.

use crate::alert::{Alert, Host, Record, RecordId, ecs};
use crate::process::ring::ARGUMENTS;

/// Longest line in bytes for a syslog message with a short header. rsyslog cuts one at 8 KB by default, which would leave
/// broken JSON.
pub const LONGEST: usize = 8000;

/// The line, of at most `longest` bytes.
pub fn line(record: &Record, id: Option<RecordId>, host: &Host, longest: usize) -> String {
    let line = ecs::line(record, id, host);
    let whole = |record: Record| ecs::line(&record, id, host);
    match record {
        Record::Alert(alert) => alert_line(line, alert.clone(), longest, whole),
        Record::FollowUp(record) => {
            cut(line, record.clone(), |it| it.shorten(), |it| whole(Record::FollowUp(it)), longest)
        }
        Record::Folded(record) => {
            cut(line, record.clone(), |it| it.shorten(), |it| whole(Record::Folded(it)), longest)
        }
        Record::Notice(_) => line,
    }
}

/// Lets a record say less until its line is short enough.
fn cut<R: Clone>(
    mut line: String,
    mut record: R,
    shorten: fn(&mut R) -> bool,
    write: impl Fn(R) -> String,
    longest: usize,
) -> String {
    while line.len() > longest && shorten(&mut record) {
        line = write(record.clone());
    }
    line
}

/// First the arguments of ancestors are cut, then the program's own.
fn alert_line(
    mut line: String,
    mut alert: Box<Alert>,
    longest: usize,
    whole: impl Fn(Record) -> String,
) -> String {
    /// Ancestors keep at least this many bytes of arguments.
    const SHORTEST: usize = 32;
    let mut of_ancestors = ARGUMENTS;
    while line.len() > longest {
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
        line = whole(Record::Alert(alert.clone()));
    }
    line
}
