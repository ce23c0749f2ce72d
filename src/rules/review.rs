//! A second look at rules and exceptions that are written without mistake but probably not meant so.

use super::ruleset::RuleSet;
use crate::calendar::Date;
use crate::diagnostics::{Diagnostic, Level};
use crate::health::hits::Hits;

/// An exception that took no effect for so long is pointed out, in seconds.
const IDLE: u64 = 90 * 86_400;

/// What an administrator should look at. `now` is in seconds since 1970.
pub fn review(ruleset: &RuleSet, hits: &Hits, now: u64) -> Vec<Diagnostic> {
    let warning = |file: &str, message: String| Diagnostic::whole(Level::Warning, file, message);
    let mut found = Vec::new();
    for rule in ruleset.unguarded() {
        found.push(warning(
            &rule.origin,
            format!(
                "rule `{}` names no program and no text that its arguments must hold, so every exec on this host is \
                 examined for it in full",
                rule.id
            ),
        ));
    }
    for exception in ruleset.exceptions() {
        let (id, file) = (&exception.id, exception.origin.as_str());
        if let Some(last) = exception.expires.filter(|_| exception.expired(Date::of_unix_time(now))) {
            found.push(warning(file, format!("exception `{id}` expired on {last} and silences nothing")));
        }
        let swallowed: Vec<&str> = ruleset
            .rules()
            .iter()
            .filter(|rule| rule.enabled && exception.is_about(rule) && exception.swallows(rule))
            .map(|rule| rule.id.as_str())
            .collect();
        if !swallowed.is_empty() {
            let (what, rules) = if exception.rules.is_none() && swallowed.len() == ruleset.rules().len() {
                ("every rule", String::new())
            } else {
                ("all of", format!(" `{}`", swallowed.join("`, `")))
            };
            found.push(warning(
                file,
                format!("exception `{id}` silences {what}{rules}: switch a rule off with `enabled = false` if that is meant"),
            ));
        }
        if let Some(hit) = hits.exceptions.get(id) {
            let quiet_since = hit.last.unwrap_or(hit.since);
            if now.saturating_sub(quiet_since) >= IDLE {
                let days = now.saturating_sub(quiet_since) / 86_400;
                found.push(warning(file, format!("exception `{id}` has silenced nothing for {days} days")));
            }
        }
    }
    found
}
