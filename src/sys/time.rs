//! The host's time zone.

use crate::calendar::LocalTime;

/// The hour and weekday of a moment, in seconds since 1970, in the host's time zone (TZ or /etc/localtime).
pub fn local(seconds: u64) -> LocalTime {
    let seconds = libc::time_t::try_from(seconds).unwrap_or(libc::time_t::MAX);
    // SAFETY: all fields of `tm` are numbers and a pointer, for which zero is a value.
    let mut broken_down: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to values that live across the call. localtime_r reads TZ, which nobody changes here.
    let result = unsafe { libc::localtime_r(&raw const seconds, &raw mut broken_down) };
    if result.is_null() {
        return LocalTime::default();
    }
    LocalTime {
        hour: u8::try_from(broken_down.tm_hour).unwrap_or_default(),
        weekday: u8::try_from(broken_down.tm_wday).unwrap_or_default(),
    }
}
