//! Tells the user of a denied or held program why it does not run, on the terminal from which it was started.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::alert::Alert;
use crate::alert::escape::Escaped;
use crate::process::parse::tty_name;

/// Longest name of a program that is shown, in bytes.
const NAME: usize = 64;

/// Writes the configured line, with `{program}` and `{rule}` filled in. Terminals in a container are left alone: their
/// numbers are those of others on the host.
pub(super) fn tell(alert: &Alert, message: &str) {
    let details = &alert.exec.details;
    if message.is_empty() || alert.namespaces.contains(&"mnt") {
        return;
    }
    let Some(device) = details.tty.filter(|&device| device != 0) else { return };
    let Some(name) = tty_name(device) else { return };
    let mut program = Escaped::new(alert.exec.image.name().unwrap_or(b"?"));
    program.shorten(NAME);
    let line = message.replace("{program}", program.as_str()).replace("{rule}", &alert.rule.id);
    // Not waiting: whoever stopped the terminal's output does not stop execwatch.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW;
    let opened = File::options().write(true).custom_flags(flags).open(Path::new("/dev").join(name));
    let Ok(mut terminal) = opened else { return };
    // The kernel's number of the terminal is made as in new_encode_dev() (include/linux/kdev_t.h).
    let is_it = terminal.metadata().is_ok_and(|found| {
        let number = (libc::major(found.rdev()), libc::minor(found.rdev()));
        let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
        found.file_type().is_char_device() && number == (major, minor)
    });
    if is_it {
        // A terminal that takes nothing now is not told.
        let _ = terminal.write_all(format!("\r\n{line}\r\n").as_bytes());
    }
}
