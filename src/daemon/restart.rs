//! Which settings a reload cannot apply: what the daemon was set up with stays until its next start, and is named.

use crate::config::{Capture, Config, Hardening, Output};
use crate::response::Mode;

/// Names the settings that differ and take effect at the next start.
///
/// Every field stands here, so that a new one cannot be forgotten: it is compared, or its place says why not.
pub(super) fn needed(started: &Config, now: &Config) -> Vec<&'static str> {
    let Config {
        capture,
        lineage,
        fold,
        follow,
        // Applied at once.
        rules: _,
        baseline,
        incident,
        output,
        response,
        journal,
        health,
        metrics,
        state_folder,
        runtime_folder,
        hardening,
    } = started;
    let mut names = of_capture(capture, &now.capture);
    let mut compare = |differs, name| {
        if differs {
            names.push(name);
        }
    };
    compare(*lineage != now.lineage, "[lineage]");
    compare(*fold != now.fold, "[fold]");
    compare(*follow != now.follow, "[follow]");
    compare(*baseline != now.baseline, "[baseline]");
    compare(*incident != now.incident, "[incident]");
    let Output { syslog, remote, journald, file, stdout } = output;
    compare(*syslog != now.output.syslog, "[output.syslog]");
    compare(*remote != now.output.remote, "[[output.remote]]");
    compare(*journald != now.output.journald, "[output.journald]");
    compare(*file != now.output.file, "[output.file]");
    compare(*stdout != now.output.stdout, "[output.stdout]");
    compare(!responses_follow(started) && *response != now.response, "[response]");
    compare(*journal != now.journal, "[journal]");
    compare(*health != now.health, "[health]");
    compare(*metrics != now.metrics, "[metrics]");
    compare(*state_folder != now.state_folder, "[state] folder");
    compare(*runtime_folder != now.runtime_folder, "[state] runtime-folder");
    let Hardening { capabilities, system_calls } = hardening;
    compare(*capabilities != now.hardening.capabilities, "[hardening] capabilities");
    compare(*system_calls != now.hardening.system_calls, "[hardening] system-calls");
    names
}

/// A reload changes `[response]` too. Not if the daemon was started without responses: it has given up what they need.
pub(super) fn responses_follow(started: &Config) -> bool {
    started.response.mode != Mode::Off
}

fn of_capture(started: &Capture, now: &Capture) -> Vec<&'static str> {
    let Capture {
        listeners,
        realtime_priority,
        receive_buffer,
        args_limit,
        queue_length,
        // It only ever concerns the start.
        already_running: _,
        identity,
        identity_folders,
    } = started;
    let all = [
        (*listeners != now.listeners, "[capture] listeners"),
        (*realtime_priority != now.realtime_priority, "[capture] realtime-priority"),
        (*receive_buffer != now.receive_buffer, "[capture] receive-buffer"),
        (*args_limit != now.args_limit, "[capture] args-limit"),
        (*queue_length != now.queue_length, "[capture] queue-length"),
        (*identity != now.identity, "[capture] identity"),
        (*identity_folders != now.identity_folders, "[capture] identity-folders"),
    ];
    all.into_iter().filter_map(|(differs, name)| differs.then_some(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::{Diagnostics, Source};

    #[test]
    fn what_was_changed_is_named() {
        let read = |text: &str| {
            let diagnostics = Diagnostics::default();
            let config = Config::parse(&Source { name: "x".into(), text: text.into() }, &diagnostics);
            assert_eq!(diagnostics.errors(), 0);
            config
        };
        let named = |text: &str| needed(&Config::default(), &read(text));
        assert_eq!(named(""), [""; 0]);
        assert_eq!(named("[rules]\nbuiltin = false\n[capture]\nalready-running = false\n"), [""; 0]);
        assert_eq!(
            named("[capture]\nreceive-buffer = 70000\nidentity = 'off'\n[output.syslog]\ntag = 'x'\n"),
            ["[capture] receive-buffer", "[capture] identity", "[output.syslog]"]
        );
        assert_eq!(named("[response]\nmode = 'enforce'\n"), ["[response]"]);
        let dry = read("[response]\nmode = 'dry-run'\n");
        assert_eq!(needed(&dry, &read("[response]\nmode = 'enforce'\nper-minute = 3\n")), [""; 0]);
        assert_eq!(named("[state]\nfolder = '/x'\n[follow]\nat-once = 3\n"), ["[follow]", "[state] folder"]);
    }
}
