//! The prefilter: on the listener's thread, could any rule match this program?
//!
//! From each rule's condition a guard is derived: something cheap without which the rule cannot match - the program is
//! one of certain utilities, its executable has one of certain names, or a piece of text stands in its path or arguments.
//! The guards of all rules are indexed, so that the common program is let go after a hash look-up or two. A rule that an
//! index names is then evaluated on what is known so far, where everything else is unknown; only if that is not false
//! are the details read.

use std::collections::{BTreeSet, HashMap};

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use regex_syntax::hir::literal::Extractor;
use regex_syntax::hir::{Class, Hir, HirKind, Repetition};
use rustc_hash::FxHashMap;

use super::catalogue::{Catalogue, LONGEST_NAME};
use super::condition::{Condition, Truth};
use super::fields::{Attribute, Role};
use super::model::Rule;
use super::pattern::{Comparison, Glob};
use super::question::Question;
use super::selection::{Check, Written};
use super::subject::utility_value;
use crate::process::exec::{Image, base_name};

/// Without one of these, a rule cannot match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Guard {
    /// Numbers of utilities.
    utilities: BTreeSet<usize>,
    /// Base names of executables, in lower case.
    names: BTreeSet<Vec<u8>>,
    /// Pieces of text in path or arguments, in lower case, without spaces.
    literals: BTreeSet<Vec<u8>>,
    /// Nothing cheap is known: the rule is evaluated for every program.
    always: bool,
}

/// Pieces of text shorter than this stand in too many programs to be worth an index.
const SHORTEST_LITERAL: usize = 2;
/// Parts of a regular expression beyond this many are not looked at.
const MOST_PARTS: usize = 32;

impl Guard {
    fn always() -> Self {
        Guard { always: true, ..Guard::default() }
    }

    /// What it costs: how often it lets programs through, by rule of thumb.
    fn cost(&self) -> usize {
        let literals: usize = self.literals.iter().map(|literal| 1000 / literal.len().max(1)).sum();
        if self.always { usize::MAX } else { self.utilities.len() + self.names.len() + literals }
    }

    fn union(mut self, other: Guard) -> Guard {
        self.utilities.extend(other.utilities);
        self.names.extend(other.names);
        self.literals.extend(other.literals);
        self.always |= other.always;
        self
    }
}

/// Makes guards. What several rules have in common, as through macros, is worked out once.
struct Guards<'r> {
    catalogue: &'r Catalogue,
    /// By field with modifiers, and values.
    of_utilities: HashMap<(&'r str, &'r [String]), Guard>,
    of_expressions: HashMap<&'r str, Guard>,
}

impl<'r> Guards<'r> {
    fn new(catalogue: &'r Catalogue) -> Self {
        Guards { catalogue, of_utilities: HashMap::new(), of_expressions: HashMap::new() }
    }

    fn of_condition(&mut self, condition: &Condition, rule: &'r Rule) -> Guard {
        match condition {
            Condition::Selection(index) => {
                rule.selections.get(*index).map_or_else(Guard::always, |selection| {
                    let alternatives = selection.alternatives.iter().map(|checks| {
                        let guards = checks.iter().map(|check| match check {
                            Check::Test(test) => self.of_test(test),
                            Check::SameAncestor(_) => Guard::always(),
                        });
                        guards.min_by_key(Guard::cost).unwrap_or_else(Guard::always)
                    });
                    alternatives.fold(Guard::default(), Guard::union)
                })
            }
            // One of the parts suffices, so the cheapest is taken.
            Condition::All(parts) => parts
                .iter()
                .map(|part| self.of_condition(part, rule))
                .min_by_key(Guard::cost)
                .unwrap_or_else(Guard::always),
            Condition::Any(parts) => {
                parts.iter().map(|part| self.of_condition(part, rule)).fold(Guard::default(), Guard::union)
            }
            // That something is missing cannot be looked up.
            Condition::Not(_) => Guard::always(),
        }
    }

    fn of_test(&mut self, test: &'r Written) -> Guard {
        let field = &test.test.field;
        let attribute = field.info.attribute;
        if field.role != Role::Own || matches!(test.test.question, Question::Field(..)) {
            return Guard::always();
        }
        let of_none = matches!(test.test.question, Question::Exists(false) | Question::Known(_));
        if attribute.of_utility() && !of_none {
            if test.values.is_empty() {
                return Guard::of_utilities(test, self.catalogue);
            }
            let key = (test.key.as_str(), test.values.as_slice());
            let make = || Guard::of_utilities(test, self.catalogue);
            return self.of_utilities.entry(key).or_insert_with(make).clone();
        }
        let searched = matches!(
            attribute,
            Attribute::Exe
                | Attribute::ExeName
                | Attribute::ExeDir
                | Attribute::Script
                | Attribute::Argv0
                | Attribute::Args
                | Attribute::Cmdline
                | Attribute::CmdlineArgs
        );
        let Some(comparison) = test.comparison.filter(|_| searched) else { return Guard::always() };
        let guards = test.values.iter().map(|value| match (attribute, comparison) {
            (Attribute::ExeName, Comparison::Equals) => Guard::of_name(value.as_bytes()),
            (Attribute::Exe, Comparison::Equals) => Guard::of_name(base_name(value.as_bytes())),
            (Attribute::Exe, Comparison::EndsWith) if value.contains('/') => {
                Guard::of_name(base_name(value.as_bytes()))
            }
            (_, Comparison::Regex) => {
                self.of_expressions.entry(value).or_insert_with(|| Guard::of_regex(value)).clone()
            }
            _ => Guard::of_literal(comparison, value),
        });
        if test.all {
            guards.min_by_key(Guard::cost).unwrap_or_else(Guard::always)
        } else {
            guards.fold(Guard::default(), Guard::union)
        }
    }
}

impl Guard {
    /// The utilities that fulfil a test.
    fn of_utilities(test: &Written, catalogue: &Catalogue) -> Guard {
        let fulfils = |utility| match utility_value(test.test.field.info.attribute, utility) {
            Some(value) => test.test.answer(&value) == Truth::True,
            // How a utility was recognised is no property of it, but takes one.
            None => true,
        };
        let all = catalogue.utilities().iter().enumerate();
        let utilities = all.filter(|(_, utility)| fulfils(utility)).map(|(number, _)| number).collect();
        Guard { utilities, ..Guard::default() }
    }

    fn of_name(name: &[u8]) -> Guard {
        // `exe|endswith = "/"` names nothing, and long names are not indexed.
        if name.is_empty() || name.len() > LONGEST_NAME {
            return Guard::always();
        }
        Guard { names: [name.to_ascii_lowercase()].into(), ..Guard::default() }
    }

    fn of_literal(comparison: Comparison, value: &str) -> Guard {
        let pieces = match comparison {
            Comparison::Glob | Comparison::PathGlob => {
                Glob::new(value.as_bytes()).map(|glob| glob.literals()).unwrap_or_default()
            }
            _ => vec![value.as_bytes().to_vec()],
        };
        Guard::of_pieces(pieces.iter().map(Vec::as_slice))
    }

    /// All of these pieces stand in the text.
    fn of_pieces<'p>(pieces: impl Iterator<Item = &'p [u8]>) -> Guard {
        // Arguments are searched as the kernel gives them, with NULs between: a piece may not reach over a space. Other
        // white space is left out for the sake of expressions, in which `\s` stands for all of it.
        let longest = pieces
            .flat_map(|piece| piece.split(|byte| matches!(byte, b'\t'..=b'\r' | b' ')))
            .max_by_key(|piece| piece.len())
            .filter(|piece| piece.len() >= SHORTEST_LITERAL);
        match longest {
            Some(piece) => Guard { literals: [piece.to_ascii_lowercase()].into(), ..Guard::default() },
            None => Guard::always(),
        }
    }

    /// A text that holds another of them is found with that one.
    fn without_needless(mut self) -> Guard {
        let literals = self.literals.clone();
        let holds = |text: &[u8], part: &[u8]| {
            text.len() > part.len() && text.windows(part.len()).any(|it| it == part)
        };
        self.literals.retain(|text| !literals.iter().any(|part| holds(text, part)));
        self
    }

    fn of_regex(expression: &str) -> Guard {
        // As the pattern is compiled.
        let parsed = regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build().parse(expression);
        parsed.map_or_else(|_| Guard::always(), |tree| Guard::of_tree(&folded(&tree)))
    }

    /// What fits the tree holds a text with which some part of it must begin. Nesting is bounded by the parser.
    fn of_tree(tree: &Hir) -> Guard {
        let beginning = |tree: &Hir| match Extractor::new().extract(tree).literals() {
            Some(literals) => literals
                .iter()
                .map(|literal| Guard::of_pieces(std::iter::once(literal.as_bytes())))
                .fold(Guard::default(), Guard::union),
            None => Guard::always(),
        };
        let inner = match tree.kind() {
            HirKind::Capture(capture) => Guard::of_tree(&capture.sub),
            HirKind::Repetition(repetition) if repetition.min > 0 => Guard::of_tree(&repetition.sub),
            HirKind::Alternation(parts) => {
                parts.iter().map(Guard::of_tree).fold(Guard::default(), Guard::union)
            }
            HirKind::Concat(parts) => {
                let tails = (1..parts.len().min(MOST_PARTS))
                    .map(|start| beginning(&Hir::concat(parts[start..].to_vec())));
                let own = parts.iter().take(MOST_PARTS).map(Guard::of_tree);
                tails.chain(own).min_by_key(Guard::cost).unwrap_or_else(Guard::always)
            }
            HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => Guard::always(),
            HirKind::Repetition(_) => Guard::always(),
        };
        std::cmp::min_by_key(beginning(tree), inner, Guard::cost).without_needless()
    }
}

/// The tree with letters in lower case, as guards are: what fits the one fits the other once it is in lower case too. A
/// class such as `[Aa]`, of which expressions with `(?i)` are made, becomes a letter and joins the text around it.
fn folded(tree: &Hir) -> Hir {
    match tree.kind() {
        HirKind::Literal(literal) => Hir::literal(literal.0.to_ascii_lowercase()),
        HirKind::Class(Class::Bytes(class)) => {
            let mut members = class.iter().flat_map(|range| range.start()..=range.end());
            let first = members.next().map(|byte| byte.to_ascii_lowercase());
            match first.filter(|first| members.all(|byte| byte.to_ascii_lowercase() == *first)) {
                Some(letter) => Hir::literal([letter]),
                None => tree.clone(),
            }
        }
        HirKind::Repetition(repetition) => {
            let Repetition { min, max, greedy, ref sub } = *repetition;
            Hir::repetition(Repetition { min, max, greedy, sub: Box::new(folded(sub)) })
        }
        HirKind::Capture(capture) => folded(&capture.sub),
        HirKind::Concat(parts) => Hir::concat(parts.iter().map(folded).collect()),
        HirKind::Alternation(parts) => Hir::alternation(parts.iter().map(folded).collect()),
        HirKind::Empty | HirKind::Class(Class::Unicode(_)) | HirKind::Look(_) => tree.clone(),
    }
}

/// The index over all rules' guards. Rules are numbered as in the rule set.
#[derive(Debug, Default)]
pub struct Index {
    utilities: FxHashMap<usize, Vec<usize>>,
    names: FxHashMap<Vec<u8>, Vec<usize>>,
    literals: Option<(AhoCorasick, Vec<Vec<usize>>)>,
    always: Vec<usize>,
}

impl Index {
    /// Indexes the rules, which come with their numbers.
    pub fn new<'r>(rules: impl Iterator<Item = (usize, &'r Rule)>, catalogue: &'r Catalogue) -> Self {
        let mut index = Index::default();
        let mut literals: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        let mut guards = Guards::new(catalogue);
        for (number, rule) in rules {
            let guard = guards.of_condition(&rule.condition, rule);
            if guard.always {
                index.always.push(number);
                continue;
            }
            for utility in guard.utilities {
                index.utilities.entry(utility).or_default().push(number);
            }
            for name in guard.names {
                index.names.entry(name).or_default().push(number);
            }
            for literal in guard.literals {
                literals.entry(literal).or_default().push(number);
            }
        }
        let (pieces, owners): (Vec<_>, Vec<_>) = literals.into_iter().unzip();
        if !pieces.is_empty() {
            let automaton = AhoCorasick::builder()
                .ascii_case_insensitive(true)
                .kind(Some(AhoCorasickKind::ContiguousNFA))
                .build(pieces);
            match automaton {
                Ok(automaton) => index.literals = Some((automaton, owners)),
                // Too many for the automaton: then those rules are evaluated each time.
                Err(_) => index.always.extend(owners.into_iter().flatten().collect::<BTreeSet<_>>()),
            }
        }
        index
    }

    /// Calls `visit` with each rule that could match, some more than once, until it returns true; whether it did.
    pub fn visit(&self, image: &Image, utility: Option<usize>, mut visit: impl FnMut(usize) -> bool) -> bool {
        let mut all = |rules: &[usize]| rules.iter().any(|&rule| visit(rule));
        if let Some(rules) = utility.and_then(|utility| self.utilities.get(&utility))
            && all(rules)
        {
            return true;
        }
        let name = image.name();
        // The path of a memfd has a base name of its own.
        let base = image.exe().map(base_name).filter(|base| Some(*base) != name);
        if name.into_iter().chain(base).filter_map(|name| self.named(name)).any(&mut all) {
            return true;
        }
        if let Some((automaton, owners)) = &self.literals {
            let texts = [image.exe(), image.raw_arguments()];
            for found in texts.iter().flatten().flat_map(|text| automaton.find_overlapping_iter(text)) {
                if all(&owners[found.pattern().as_usize()]) {
                    return true;
                }
            }
        }
        all(&self.always)
    }

    /// Some rule is about a utility.
    pub fn of_utilities(&self) -> bool {
        !self.utilities.is_empty()
    }

    fn named(&self, name: &[u8]) -> Option<&[usize]> {
        let mut buffer = [0; LONGEST_NAME];
        let folded = buffer.get_mut(..name.len())?;
        folded.copy_from_slice(name);
        folded.make_ascii_lowercase();
        self.names.get(&*folded).map(Vec::as_slice)
    }

    /// The rules that are evaluated for every program.
    pub fn always(&self) -> &[usize] {
        &self.always
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::{Diagnostics, Source};
    use crate::document::Document;
    use crate::process::capture::Prefilter;
    use crate::rules::catalogue::Hints;
    use crate::rules::condition::Truth;
    use crate::rules::macros::Macros;
    use crate::rules::model;
    use crate::rules::ruleset::{RuleSet, evaluate};
    use crate::rules::subject::Subject;
    use proptest::prelude::*;

    fn literals(expression: &str) -> Vec<String> {
        let guard = Guard::of_regex(expression);
        if guard.always {
            return Vec::new();
        }
        assert!(!guard.literals.is_empty(), "{expression}");
        guard.literals.into_iter().map(|literal| String::from_utf8(literal).unwrap()).collect()
    }

    #[test]
    fn expressions_need_texts() {
        for (expression, needed) in [
            (r"-(W|R)\s?(\s|x)([0-9a-f]{2}\s?){2,20}", &["-r", "-w"][..]),
            (r"\s-[FTd]\s", &["-d", "-f", "-t"]),
            (r"(?i)^.*MiXed$", &["mixed"]),
            (r"(?i)^(?:https?://)?LocalHost(?::\d+)?", &["localhost"]),
            ("[0-9]+(curl|wget) ", &["curl", "wget"]),
            ("(abc|[0-9]+def)?xyz", &["xyz"]),
            ("(?:ab)+", &["ab"]),
            ("a|.bc", &[]),
            ("(?:ab)*", &[]),
            ("[a-z]{30}", &[]),
            ("", &[]),
        ] {
            assert_eq!(literals(expression), needed, "{expression}");
        }
    }

    fn rule_set(select: &str) -> Option<RuleSet> {
        let text =
            format!("[[rule]]\nid = 'x'\ntitle = 'x'\nseverity = 'low'\n[[rule.select.s]]\n{select}\n");
        let source = Source { name: String::new(), text };
        let diagnostics = Diagnostics::default();
        let tables = model::read(&Document::parse(&source, &diagnostics), &Macros::default(), &diagnostics);
        let rules = tables.rules.into_iter().map(|rule| rule.value).collect();
        (!diagnostics.any_error()).then(|| RuleSet::new(Vec::new(), rules, Vec::new()))
    }

    proptest! {
        #[test]
        fn what_matches_is_never_let_go(
            field in "exe|exe\\.name|exe\\.dir|argv0|args|cmdline|cmdline\\.args",
            comparison in "|\\|contains|\\|startswith|\\|endswith|\\|glob|\\|pathglob|\\|re|\\|contains\\|all",
            values in proptest::collection::vec("[abA/ ]{0,3}([.*?+|]|\\(a\\|b\\)|\\[ab\\]|\\{1,2\\}|\\(a[^b]\\)|\\\\s|\\^|\\$|\\(\\?i\\))?[ab /]{0,3}[.*?+]?[ab]{0,2}", 1..4),
            exe in "/[abAB/]{0,6}",
            arguments in proptest::collection::vec("[abAB/ ]{0,6}", 0..4),
        ) {
            let values: Vec<String> = values.iter().map(|value| format!("'{value}'")).collect();
            // Most are good; a mistake, such as an empty value, says nothing here.
            if let Some(rules) = rule_set(&format!("'{field}{comparison}' = [{}]", values.join(", "))) {
                let image = Image::new(Some(exe.as_bytes()), Some(&arguments));
                let subject = Subject::on_hot_path(&image, rules.catalogue(), Hints::default());
                if evaluate(&rules.rules()[0], &subject) == Truth::True {
                    prop_assert!(rules.could_match(&image, Hints::default()));
                }
            }
        }
    }
}
