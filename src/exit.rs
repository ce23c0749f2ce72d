//! Exit codes, from sysexits.h where it has one that fits. The service unit does not restart after those that a restart
//! cannot mend.

/// Everything went well.
pub const OK: u8 = 0;
/// EX_USAGE: the command line is wrong.
pub const USAGE: u8 = 64;
/// EX_NOINPUT: a file that should be read cannot be.
pub const NO_INPUT: u8 = 66;
/// EX_UNAVAILABLE: the kernel or the environment gives no process events, or no daemon answers.
pub const UNAVAILABLE: u8 = 69;
/// EX_SOFTWARE: a mistake in execwatch, or a thread that ended.
pub const SOFTWARE: u8 = 70;
/// EX_OSERR: a system call that should work does not.
pub const OS: u8 = 71;
/// EX_IOERR: standard output cannot be written.
pub const IO: u8 = 74;
/// EX_TEMPFAIL: another execwatch runs already.
pub const RUNNING: u8 = 75;
/// EX_NOPERM: not root, or without a needed capability.
pub const PERMISSION: u8 = 77;
/// EX_CONFIG: a mistake in the configuration, rules or utilities.
pub const CONFIG: u8 = 78;
