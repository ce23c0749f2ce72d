//! The terminal: taken for the view, and given back on every way out.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use super::frame::Line;

/// The alternate screen, without a cursor.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l";
/// The reverse, in the usual style.
const LEAVE: &[u8] = b"\x1b[0m\x1b[?25h\x1b[?1049l";

/// How the terminal was; `None` if it has been given back.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal, as long as it is taken.
pub(super) struct Screen(());

impl Screen {
    /// Takes the terminal. Also a panic gives it back, before its message.
    pub(super) fn take() -> io::Result<Screen> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            default(panic);
        }));
        let screen = Screen(());
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &raw)?;
        write(ENTER)?;
        Ok(screen)
    }

    /// Shows lines, each from the left edge, and nothing else.
    pub(super) fn show(&self, lines: &[Line]) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for (number, line) in lines.iter().enumerate() {
            if number > 0 {
                text.push_str("\r\n");
            }
            // What was there before is erased in the usual style.
            text += &format!("\x1b[{}m{}\x1b[0m\x1b[K", line.style.code(), line.text);
        }
        text += "\x1b[J";
        write(text.as_bytes())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // The terminal may have gone, and then there is nothing to give back.
        let _ = write(LEAVE);
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &before);
    }
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}
