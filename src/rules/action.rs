//! What is done about a program that a rule matches, besides its alert.

/// What a rule asks for. Nothing but the alert happens unless the configuration's `[response]` allows more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The alert alone.
    #[default]
    Alert,
    /// The program is killed before its first instruction.
    Deny,
    /// The program is stopped before its first instruction, until somebody decides.
    Hold,
    /// The program and its descendants are killed.
    KillTree,
    /// The control group of the program's container or unit is frozen.
    Freeze,
}

/// Actions by their words.
pub const ACTIONS: [(&str, Action); 5] = [
    ("alert", Action::Alert),
    ("deny", Action::Deny),
    ("hold", Action::Hold),
    ("kill-tree", Action::KillTree),
    ("freeze", Action::Freeze),
];

impl Action {
    /// The word used in rules and alerts.
    pub fn as_str(self) -> &'static str {
        ACTIONS[self as usize].0
    }

    /// It is taken while the program is held, if the rule can be decided then.
    pub fn of_held(self) -> bool {
        matches!(self, Action::Deny | Action::Hold)
    }

    /// Of several rules that match, the action with the highest number is taken: one that ends the program before one
    /// that stops it.
    pub fn precedence(self) -> u8 {
        match self {
            Action::KillTree => 4,
            Action::Deny => 3,
            Action::Freeze => 2,
            Action::Hold => 1,
            Action::Alert => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_in_the_order_of_the_actions() {
        for (word, action) in ACTIONS {
            assert_eq!(action.as_str(), word);
        }
    }
}
