//! Tells somebody of an incident: a program is given a line of JSON.
//!
//! On a thread of its own, which may execute programs and waits for them. No shell is involved. The program has what the
//! daemon has left of its rights, a clean environment, and no more time than was configured.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Serialize;

use super::Notify;
use super::story::Incident;
use crate::alert::Notice;
use crate::clock;
use crate::rules::model::Severity;

/// Notifications that wait for the one before; what is more is only said.
const MOST_WAITING: usize = 64;
/// How often it is looked whether the program has ended.
const GLANCE: Duration = Duration::from_millis(20);
/// Where the program finds others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why somebody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// It has opened.
    Opened,
    /// Its severity has risen.
    Raised,
}

/// What the program is given.
#[derive(Debug, Serialize)]
pub struct Message {
    /// Why.
    pub event: Event,
    /// The incident, as the list shows it.
    pub incident: Incident,
}

/// The thread, seen from the worker.
#[derive(Debug)]
pub struct Notifier {
    messages: Sender<String>,
}

/// How something is said in the stream of records.
pub type Say = Box<dyn Fn(Notice) + Send>;

impl Notifier {
    /// Starts the thread.
    pub fn start(notify: Notify, say: Say) -> io::Result<Notifier> {
        let (messages, taken) = crossbeam_channel::bounded::<String>(MOST_WAITING);
        std::thread::Builder::new().name("notify".to_owned()).stack_size(256 * 1024).spawn(move || {
            for message in taken {
                if let Err(why) = tell(&notify, &message) {
                    let program = notify.command.first().map_or("", String::as_str);
                    let message = format!("nobody was notified of an incident: {program} {why}");
                    log::warn!("{message}");
                    let severity = Severity::High;
                    say(Notice { kind: "incident", severity, time_ns: clock::realtime_ns(), message });
                }
            }
        })?;
        Ok(Notifier { messages })
    }

    /// Has somebody told; false if too many wait.
    pub fn notify(&self, message: &Message) -> bool {
        let line = serde_json::to_string(message).unwrap_or_default() + "\n";
        self.messages.try_send(line).is_ok()
    }
}

/// Runs the program and gives it the message; why that failed.
fn tell(notify: &Notify, message: &str) -> Result<(), String> {
    let [program, arguments @ ..] = notify.command.as_slice() else { return Ok(()) };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", PATH).current_dir("/").process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("cannot be executed: {error}"))?;
    // It is no more important than others when memory is short. Where that cannot be changed, it stays as it is.
    let _ = std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), "0");
    if let Some(mut stdin) = child.stdin.take() {
        // The message fits a pipe, so this does not wait; a program that does not want it may close its end.
        let _ = stdin.write_all(message.as_bytes());
    }
    match wait(&mut child, notify.time_limit) {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(Some(status)) => Err(format!("failed: {status}")),
        Ok(None) => Err(format!("took longer than {:?} and was killed", notify.time_limit)),
        Err(error) => Err(format!("cannot be waited for: {error}")),
    }
}

/// Waits for the program's end; `None` if it was killed with all that it has started in its group.
fn wait(child: &mut Child, time_limit: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + time_limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            let group = i32::try_from(child.id()).map(Pid::from_raw).map_err(io::Error::other)?;
            // It may have left its group: the program itself is killed in any case.
            let _ = killpg(group, Signal::SIGKILL);
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(GLANCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str], limit_ms: u64) -> Result<(), String> {
        let command = words.iter().map(|&word| word.to_owned()).collect();
        tell(&Notify { command, time_limit: Duration::from_millis(limit_ms) }, "{\"event\":\"opened\"}\n")
    }

    #[test]
    fn a_program_gets_the_message_and_no_shell_reads_its_arguments() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("$(id)");
        run(&["/usr/bin/tee", file.to_str().unwrap()], 10_000).unwrap();
        assert_eq!(std::fs::read_to_string(file).unwrap(), "{\"event\":\"opened\"}\n");
    }

    #[test]
    fn one_that_hangs_is_killed_and_one_that_fails_is_said() {
        let hung = run(&["/bin/sh", "-c", "sleep 1000 & sleep 1000"], 100).unwrap_err();
        assert!(hung.contains("was killed"), "{hung}");
        assert!(run(&["/bin/false"], 10_000).unwrap_err().contains("exit status: 1"));
        assert!(run(&["/nowhere/program"], 10_000).unwrap_err().contains("cannot be executed"));
    }
}
