//! What the fields of Sigma's process creation events are in rules of execwatch.

use crate::diagnostics::suggestion;

/// The counterpart of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counterpart {
    /// A field that holds text.
    Text(&'static str),
    /// A field that holds a number.
    Number(&'static str),
    /// No program on Linux has it: it is missing in every event.
    Missing,
    /// There is no counterpart, for this reason.
    None(&'static str),
}

/// Sigma's fields of process creation events, with their counterparts.
pub const FIELDS: &[(&str, Counterpart)] = {
    use Counterpart::{Missing, None, Number, Text};
    const GUID: &str = "execwatch numbers processes by pid and start time";
    const HASH: &str = "test `exe.sha256` by hand";
    &[
        ("Image", Text("exe")),
        ("CommandLine", Text("cmdline")),
        ("ParentImage", Text("parent.exe")),
        ("ParentCommandLine", Text("parent.cmdline")),
        ("CurrentDirectory", Text("cwd")),
        ("User", Text("user")),
        ("ParentUser", Text("parent.user")),
        ("LogonId", Number("loginuid")),
        ("ProcessId", Number("pid")),
        ("ParentProcessId", Number("parent.pid")),
        // The version resource of a Windows executable.
        ("OriginalFileName", Missing),
        ("Product", Missing),
        ("Description", Missing),
        ("Company", Missing),
        ("FileVersion", Missing),
        ("Imphash", Missing),
        ("imphash", Missing),
        ("IntegrityLevel", None("integrity levels are of Windows")),
        ("Hashes", None(HASH)),
        ("sha256", None(HASH)),
        ("sha1", None(HASH)),
        ("md5", None(HASH)),
        ("ProcessGuid", None(GUID)),
        ("ParentProcessGuid", None(GUID)),
        ("LogonGuid", None("logins have no such id on Linux")),
        ("TerminalSessionId", None("sessions of Windows are no sessions of Linux")),
    ]
};

/// The counterpart of `name`, or why there is none.
pub(super) fn counterpart(name: &str) -> Result<Counterpart, String> {
    match FIELDS.iter().find(|(known, _)| *known == name) {
        Some((_, Counterpart::None(reason))) => {
            Err(format!("the field `{name}` has no counterpart: {reason}"))
        }
        Some(&(_, counterpart)) => Ok(counterpart),
        None => {
            let hint = suggestion(name, FIELDS.iter().map(|&(name, _)| name));
            Err(format!("the field `{name}` has no counterpart in execwatch{hint}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::fields::{Field, Kind};

    #[test]
    fn counterparts_are_fields_of_that_kind() {
        for (name, counterpart) in FIELDS {
            let (field, kind) = match counterpart {
                Counterpart::Text(field) => (field, Kind::Text),
                Counterpart::Number(field) => (field, Kind::Number),
                Counterpart::Missing | Counterpart::None(_) => continue,
            };
            assert_eq!(Field::find(field).map(|field| field.info.kind), Some(kind), "{name}");
        }
        assert!(counterpart("image").unwrap_err().ends_with("did you mean `Image`?"));
        assert!(counterpart("Hashes").unwrap_err().contains("exe.sha256"));
    }
}
