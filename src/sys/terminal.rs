//! The terminal that standard output is.

/// Its columns; `None` if it is no terminal, or does not tell.
pub fn columns() -> Option<usize> {
    size().map(|(columns, _)| columns)
}

/// Its columns and lines; `None` if it is no terminal, or does not tell.
pub fn size() -> Option<(usize, usize)> {
    // SAFETY: a structure of numbers, for which zero is a value.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ (ioctl_tty(2)) fills the structure it is given, which lives until it returns.
    let result = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col > 0).then_some((usize::from(size.ws_col), usize::from(size.ws_row)))
}
