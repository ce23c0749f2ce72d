//! What is known of a tuple, and what that means for an alert.

use crate::rules::model::{SEVERITIES, Severity};

/// What the baseline does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Off,
    /// Alerts tell what is known; nothing is changed.
    Learn,
    /// What is new is raised, what is known is lowered or silenced.
    Enforce,
}

/// What becomes of what is known, in [`Mode::Enforce`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenKnown {
    /// Its severity is one step lower.
    Lower,
    /// There is no alert; it is counted.
    Silence,
}

/// `[baseline]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// What the baseline does.
    pub mode: Mode,
    /// What becomes of what is known.
    pub known: WhenKnown,
    /// The learning period in days: only within it does a tuple become known by itself.
    pub learn_days: u64,
    /// On so many days a tuple must have been seen to be known.
    pub known_after_days: u64,
    /// What was not seen for more than so many days is new again.
    pub new_after_days: u64,
    /// Tuples remembered.
    pub rows: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            mode: Mode::Learn,
            known: WhenKnown::Lower,
            learn_days: 14,
            known_after_days: 3,
            new_after_days: 45,
            rows: 100_000,
        }
    }
}

/// How well a tuple is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Knowledge {
    /// Never seen, or not for long.
    #[default]
    New,
    /// Seen, but not on enough days of the learning period.
    Seen,
    /// Normal here: seen on enough days, or approved.
    Known,
}

/// What was known of a tuple before an exec.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Past {
    /// How well.
    pub knowledge: Knowledge,
    /// How often it was seen.
    pub count: u64,
    /// On how many days.
    pub days: u64,
    /// First seen: seconds since 1970.
    pub since_s: Option<u64>,
    /// An administrator said that it is normal.
    pub approved: bool,
}

/// What becomes of a rule's match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// It has this severity, which is higher than its own.
    Raised(Severity),
    /// It has this severity, which is lower than its own.
    Lowered(Severity),
    /// It is no alert.
    Silenced,
}

/// Decides. High and critical severities are never lowered and never silenced.
pub fn effect(settings: &Settings, knowledge: Knowledge, severity: Severity) -> Effect {
    if settings.mode != Mode::Enforce {
        return Effect::None;
    }
    let step = |up: bool| {
        let at = severity as usize;
        let next = if up { at.checked_add(1) } else { at.checked_sub(1) };
        next.and_then(|next| SEVERITIES.get(next)).map(|&(_, severity)| severity)
    };
    match knowledge {
        Knowledge::New => step(true).map_or(Effect::None, Effect::Raised),
        Knowledge::Seen => Effect::None,
        Knowledge::Known if severity >= Severity::High => Effect::None,
        Knowledge::Known => match settings.known {
            WhenKnown::Silence => Effect::Silenced,
            WhenKnown::Lower => step(false).map_or(Effect::None, Effect::Lowered),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities() {
        use Severity::{Critical, High, Info, Low, Medium};
        let of = |mode, known| {
            let settings = Settings { mode, known, ..Settings::default() };
            move |knowledge, severity| effect(&settings, knowledge, severity)
        };
        let all = [Info, Low, Medium, High, Critical];
        let lower = of(Mode::Enforce, WhenKnown::Lower);
        let silence = of(Mode::Enforce, WhenKnown::Silence);
        for (severity, higher) in [(Info, Low), (Low, Medium), (Medium, High), (High, Critical)] {
            assert_eq!(lower(Knowledge::New, severity), Effect::Raised(higher));
            assert_eq!(silence(Knowledge::New, severity), Effect::Raised(higher));
        }
        assert_eq!(lower(Knowledge::New, Critical), Effect::None);
        assert_eq!(lower(Knowledge::Known, Info), Effect::None);
        assert_eq!(lower(Knowledge::Known, Low), Effect::Lowered(Info));
        assert_eq!(lower(Knowledge::Known, Medium), Effect::Lowered(Low));
        for severity in [Info, Low, Medium] {
            assert_eq!(silence(Knowledge::Known, severity), Effect::Silenced);
        }
        for severity in [High, Critical] {
            assert_eq!(lower(Knowledge::Known, severity), Effect::None);
            assert_eq!(silence(Knowledge::Known, severity), Effect::None);
        }
        for severity in all {
            assert_eq!(lower(Knowledge::Seen, severity), Effect::None);
            for knowledge in [Knowledge::New, Knowledge::Seen, Knowledge::Known] {
                assert_eq!(of(Mode::Learn, WhenKnown::Silence)(knowledge, severity), Effect::None);
            }
        }
    }
}
