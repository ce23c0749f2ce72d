//! The host's time zone, and whether its clock is kept.

use crate::calendar::LocalTime;

/// The hour and weekday of a moment, in seconds since 1970, in the host's time zone (TZ or /etc/localtime).
pub fn local(seconds: u64) -> LocalTime {
    broken_down(seconds).map_or_else(LocalTime::default, |time| LocalTime {
        hour: u8::try_from(time.tm_hour).unwrap_or_default(),
        weekday: u8::try_from(time.tm_wday).unwrap_or_default(),
    })
}

/// How many seconds the host's time zone is ahead of UTC at a moment.
pub fn offset(seconds: u64) -> i32 {
    broken_down(seconds).and_then(|time| i32::try_from(time.tm_gmtoff).ok()).unwrap_or_default()
}

/// Whether the kernel knows its clock to be synchronised (adjtimex(2)); `None` if it does not tell.
pub fn synchronised() -> Option<bool> {
    // SAFETY: all fields of `timex` are numbers, for which zero is a value; zero modes change nothing.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a value that lives across the call.
    let result = unsafe { libc::adjtimex(&raw mut state) };
    (result >= 0).then_some(result != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0)
}

#[allow(deprecated, reason = "libc says of musl's type alone that it became wider; either width does")]
fn broken_down(seconds: u64) -> Option<libc::tm> {
    let seconds = libc::time_t::try_from(seconds).unwrap_or(libc::time_t::MAX);
    // SAFETY: all fields of `tm` are numbers and a pointer, for which zero is a value.
    let mut broken_down: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to values that live across the call. localtime_r reads TZ, which nobody changes here.
    let result = unsafe { libc::localtime_r(&raw const seconds, &raw mut broken_down) };
    (!result.is_null()).then_some(broken_down)
}
