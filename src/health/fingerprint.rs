//! One number for all that was configured, so that hosts and times can be compared.

use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::identity::contents::hexadecimal;
use crate::rules::ruleset::RuleSet;

/// SHA-256 in hexadecimal over everything that is in force: each value of the configuration, be it written, a default or
/// from the command line, and the texts of all files of utilities, rules, exceptions and macros. It says nothing across
/// versions of execwatch, whose values may differ in kind.
pub fn of(config: &Config, ruleset: &RuleSet) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{config:?}"));
    hash.update(ruleset.digest());
    hexadecimal(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::{Diagnostics, Source};
    use crate::rules::load::compile;

    #[test]
    fn every_value_and_every_text_counts() {
        let of_files = |files: &[(&str, &str)]| {
            let source = |&(name, text): &(&str, &str)| Source { name: name.into(), text: text.into() };
            compile(files.iter().map(source).collect(), &Diagnostics::default()).unwrap()
        };
        let rules = |text| of_files(&[("a.toml", text)]);
        let config = Config::default();
        let first = of(&config, &rules(""));
        assert_eq!(first.len(), 64);
        assert_eq!(of(&config, &rules("")), first);
        assert_ne!(of(&config, &rules("# a comment")), first);
        let mut other = config.clone();
        other.capture.args_limit += 1;
        assert_ne!(of(&other, &rules("")), first);
        let (a, b) = (of_files(&[("a", "#"), ("b", "")]), of_files(&[("a", "#b"), ("", "")]));
        assert_ne!(of(&config, &a), of(&config, &b));
    }
}
