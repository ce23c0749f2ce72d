//! A compiled set of rules, and its two questions: could one match, and which do.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::catalogue::{Catalogue, Hints, Utility};
use super::condition::Truth;
use super::exception::Exception;
use super::fields::Attribute;
use super::held::HeldRules;
use super::model::Rule;
use super::prefilter::Index;
use super::selection::Written;
use super::subject::{Subject, Surroundings};
use crate::alert::Clock;
use crate::calendar::Date;
use crate::order;
use crate::process::capture::{Prefilter, Wants};
use crate::process::exec::{Exec, Image};
use crate::response::rate::Rate;

/// Rules, exceptions, catalogue and their index.
#[derive(Debug, Default)]
pub struct RuleSet {
    catalogue: Catalogue,
    rules: Vec<Counted<Rule>>,
    exceptions: Vec<Counted<Exception>>,
    index: Index,
    pub(super) held: HeldRules,
    /// How often each rule acted lately, by number.
    rates: Vec<Rate>,
    wants: Wants,
    digest: [u8; 32],
}

/// A rule or exception, and how often it took effect.
#[derive(Debug)]
pub struct Counted<T> {
    entry: T,
    hits: AtomicU64,
}

impl<T> std::ops::Deref for Counted<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.entry
    }
}

impl<T> Counted<T> {
    fn new(entry: T) -> Self {
        Counted { entry, hits: AtomicU64::new(0) }
    }

    /// How often it took effect since the start.
    pub fn hits(&self) -> u64 {
        self.hits.load(Relaxed)
    }

    /// Counts one more time.
    pub fn hit(&self) {
        self.hits.fetch_add(1, Relaxed);
    }
}

/// A rule that matches, and the exception that silences it.
#[derive(Debug, Clone, Copy)]
pub struct Match<'r> {
    /// The rule.
    pub rule: &'r Counted<Rule>,
    /// The exception, if one does.
    pub exception: Option<&'r Counted<Exception>>,
}

impl RuleSet {
    /// Compiles the set; rules that are switched off are listed but not evaluated.
    pub fn new(utilities: Vec<Utility>, mut rules: Vec<Rule>, exceptions: Vec<Exception>) -> Self {
        let catalogue = Catalogue::new(utilities);
        // Those switched off come last, so that the index numbers the rest.
        order::by_key(&mut rules, |rule| !rule.enabled);
        let enabled = rules.partition_point(|rule| rule.enabled);
        let index = Index::new(rules[..enabled].iter().enumerate(), &catalogue);
        let held = HeldRules::new(
            rules[..enabled].iter().enumerate(),
            exceptions.iter().flat_map(|exception| exception.selection.tests()),
            &catalogue,
        );
        let rates = rules.iter().map(|_| Rate::default()).collect();
        let tests = rules[..enabled].iter().flat_map(Rule::tests);
        let in_exceptions = exceptions.iter().flat_map(|exception| exception.selection.tests());
        let of_thresholds = rules[..enabled]
            .iter()
            .filter_map(|rule| rule.threshold.as_ref())
            .flat_map(|threshold| threshold.by.iter().chain(&threshold.distinct));
        let mut wants = Wants::default();
        for field in tests.chain(in_exceptions).flat_map(Written::fields).chain(of_thresholds) {
            match field.info.attribute {
                Attribute::Env | Attribute::Environment => wants.environment = true,
                Attribute::ExeUpperLayer => wants.upper_layer = true,
                Attribute::ExeSha256 => wants.content = true,
                Attribute::ExePackageManaged => wants.packages = true,
                Attribute::FirstSeen | Attribute::BaselineDays | Attribute::BaselineCount => {
                    wants.baseline = true;
                }
                _ => {}
            }
        }
        RuleSet {
            catalogue,
            rules: rules.into_iter().map(Counted::new).collect(),
            exceptions: exceptions.into_iter().map(Counted::new).collect(),
            index,
            held,
            rates,
            wants,
            digest: [0; 32],
        }
    }

    /// How often a rule acted lately, by its number; `None` if there is no such rule.
    pub fn rate(&self, number: usize) -> Option<&Rate> {
        self.rates.get(number)
    }

    /// A rule and its number by its id.
    pub fn find(&self, id: &str) -> Option<(usize, &Counted<Rule>)> {
        self.rules.iter().enumerate().find(|(_, rule)| rule.id == id)
    }

    /// The same, read from texts with this digest.
    pub fn with_digest(self, digest: [u8; 32]) -> Self {
        RuleSet { digest, ..self }
    }

    /// The digest of the texts that it was read from.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The catalogue.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// All rules.
    pub fn rules(&self) -> &[Counted<Rule>] {
        &self.rules
    }

    /// All exceptions.
    pub fn exceptions(&self) -> &[Counted<Exception>] {
        &self.exceptions
    }

    /// Goes on with the counts of the set before it, so that a reload does not begin them anew.
    pub fn count_on(&self, before: &RuleSet) {
        carry(&before.rules, &self.rules, |rule| &rule.id);
        carry(&before.exceptions, &self.exceptions, |exception| &exception.id);
    }

    /// The rules whose conditions name no program and no text that the prefilter could look for.
    pub fn unguarded(&self) -> impl Iterator<Item = &Rule> {
        self.index.always().iter().filter_map(|&number| self.rules.get(number)).map(|counted| &counted.entry)
    }

    /// The exec with all that is needed to read its fields.
    pub fn subject<'a>(
        &'a self,
        exec: &'a Exec,
        surroundings: &'a Surroundings,
        clock: &'a dyn Clock,
    ) -> Subject<'a> {
        Subject::whole(exec, &self.catalogue, surroundings, clock)
    }

    /// The rules that match, the most severe first and otherwise in the order of the files, each with the exception that
    /// silences it on that day.
    pub fn matching(&self, subject: &Subject<'_>, today: Date) -> Vec<Match<'_>> {
        let mut candidates = Vec::new();
        self.index.visit(subject.image(), subject.utility().map(|found| found.utility), |number| {
            candidates.push(number);
            false
        });
        candidates.sort_unstable();
        candidates.dedup();
        let mut matching: Vec<Match<'_>> = candidates
            .into_iter()
            .filter_map(|number| self.rules.get(number))
            .filter(|rule| evaluate(&rule.entry, subject) == Truth::True)
            .map(|rule| Match { rule, exception: self.exception(&rule.entry, subject, today) })
            .collect();
        matching.sort_by_key(|found| std::cmp::Reverse(found.rule.entry.severity));
        matching
    }

    fn exception(&self, rule: &Rule, subject: &Subject<'_>, today: Date) -> Option<&Counted<Exception>> {
        self.exceptions.iter().find(|counted| {
            let exception = &counted.entry;
            exception.is_about(rule) && !exception.expired(today) && exception.covers(subject)
        })
    }

    /// The exception that would silence a rule, had it not expired by that day.
    pub fn expired_exception(&self, rule: &Rule, subject: &Subject<'_>, today: Date) -> Option<&Exception> {
        let exceptions = self.exceptions.iter().map(|counted| &counted.entry);
        let mut expired = exceptions.filter(|exception| exception.is_about(rule) && exception.expired(today));
        expired.find(|exception| exception.covers(subject))
    }
}

/// Adds the counts of entries to those of the same id.
fn carry<T>(from: &[Counted<T>], to: &[Counted<T>], id: impl Fn(&T) -> &String) {
    let hits: HashMap<&String, u64> = from.iter().map(|old| (id(&old.entry), old.hits())).collect();
    for new in to {
        new.hits.fetch_add(hits.get(id(&new.entry)).copied().unwrap_or(0), Relaxed);
    }
}

impl Prefilter for RuleSet {
    fn could_match(&self, image: &Image, hints: Hints<'_>) -> bool {
        let subject = Subject::on_hot_path(image, &self.catalogue, hints);
        self.index.visit(image, subject.utility().map(|found| found.utility), |number| {
            self.rules.get(number).is_some_and(|rule| evaluate(&rule.entry, &subject) != Truth::False)
        })
    }

    fn wants_utilities(&self) -> bool {
        self.index.of_utilities()
    }

    fn wants_comm(&self, image: &Image) -> bool {
        self.catalogue.leaves_name_open(image)
    }

    fn wants(&self) -> Wants {
        self.wants
    }

    fn ruleset(&self) -> &RuleSet {
        self
    }
}

/// Whether a rule matches a subject.
pub fn evaluate(rule: &Rule, subject: &Subject<'_>) -> Truth {
    rule.condition.evaluate(&|index| {
        rule.selections.get(index).map_or(Truth::Unknown, |selection| selection.evaluate(subject))
    })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::alert::HostClock;
    use crate::diagnostics::{Diagnostics, Source};
    use crate::document::Document;
    use crate::process::details::Namespaces;
    use crate::process::names::Accounts;
    use crate::process::relatives::NoProcesses;
    use crate::rules::macros::Macros;
    use crate::rules::model;

    const UTILITIES: &str = "
        [[utility]]
        name = \"nc\"
        aliases = [\"nc.openbsd\", \"ncat*\"]
        category = \"netcat\"
        [[utility]]
        name = \"curl\"
        category = \"web\"
        everyday = true
        [[utility]]
        name = \"sh\"
        aliases = [\"dash\"]
        category = \"shell\"\n";

    fn rules(text: &str) -> RuleSet {
        let source = Source { name: "test.toml".to_owned(), text: UTILITIES.to_owned() + text };
        let diagnostics = Diagnostics::default();
        let tables = {
            let document = Document::parse(&source, &diagnostics);
            model::read(&document, &Macros::default(), &diagnostics)
        };
        let mistakes: Vec<String> = diagnostics.into_list().iter().map(ToString::to_string).collect();
        assert!(mistakes.is_empty(), "{}\n{text}", mistakes.join("\n"));
        RuleSet::new(
            tables.utilities.into_iter().map(|it| it.value).collect(),
            tables.rules.into_iter().map(|it| it.value).collect(),
            Vec::new(),
        )
    }

    /// One test: a field, how it is compared and with what.
    fn test() -> impl Strategy<Value = (String, String)> {
        let fields = vec![
            "exe",
            "exe.name",
            "exe.dir",
            "script",
            "argv0",
            "args",
            "argv",
            "cmdline",
            "cmdline.args",
            "cmdline.comm",
            "comm",
            "args.flags",
            "args.options",
            "utility.name",
            "utility.category",
            "utility.via",
            "user",
            "parent.name",
        ];
        let modifiers = vec![
            "",
            "|contains",
            "|startswith",
            "|endswith",
            "|glob",
            "|pathglob",
            "|contains|all",
            "|cased",
            "|endswith|all",
            "|contains|cased",
        ];
        let values = vec![
            "nc",
            "NC",
            "curl",
            "sh",
            "/bin/sh",
            "/usr/bin/nc.openbsd",
            "-e",
            "-l",
            "e",
            "x y",
            " ",
            "y",
            "/",
            "/nc",
            "n",
            "*",
            "*nc*",
            "/*/nc*",
            "**",
            "netcat",
            "web",
            "shell",
            "busybox",
            "openbsd",
            "applet",
            "ld-linux-x86-64.so.2",
            "memfd:nc",
            "/tmp/a.sh",
            "p=80",
            "root",
        ];
        let expressions = vec![
            "nc",
            r"^nc$",
            r"n[cC]\s-[el]",
            r"-e|-l",
            r"(?i)CURL",
            r"\bsh\b",
            r"nc.openbsd(\s|$)",
            r"/(?:usr/)?bin/.*sh",
            r"x[ -]y",
            r"e\s+x",
            r"[a-z]+\.sh",
            r"(?:nc|sh)?80",
        ];
        let expressions = select(expressions).prop_map(|expression| ("|re", vec![expression]));
        let plain = (select(modifiers), proptest::collection::vec(select(values), 1..3));
        let texts = (select(fields), prop_oneof![5 => plain, 1 => expressions])
            .prop_map(|(field, (modifier, values))| (format!("{field}{modifier}"), format!("{values:?}")));
        let others = vec![
            ("utility.everyday", "false"),
            ("utility.disguised", "true"),
            ("utility.name|exists", "true"),
            ("utility.name|exists", "false"),
            ("utility.name|known", "false"),
            ("exe|known", "false"),
            ("args|exists", "false"),
            ("args|every|startswith", "\"-\""),
            ("args.count|lt", "2"),
            ("exe.memfd", "true"),
            ("exe.deleted", "false"),
            ("exe.name|fieldref", "\"argv0\""),
            ("args.cut", "true"),
            ("uid", "0"),
        ];
        let others = select(others).prop_map(|(key, value): (&str, &str)| (key.to_owned(), value.to_owned()));
        prop_oneof![4 => texts, 1 => others]
    }

    fn rule() -> impl Strategy<Value = String> {
        let alternative = proptest::collection::vec(test(), 1..3).prop_map(|tests| {
            // Keys of a table differ.
            let tests: std::collections::BTreeMap<String, String> = tests.into_iter().collect();
            tests.into_iter().fold(String::new(), |mut text, (key, value)| {
                let _ = writeln!(text, "\"{key}\" = {value}");
                text
            })
        });
        let selection = proptest::collection::vec(alternative, 1..3);
        let conditions = vec![
            "a",
            "not a",
            "a and b",
            "a or b",
            "a and not b",
            "not (a and b)",
            "not (a or not b) or c",
            "1 of them",
            "all of them",
            "a and (b or not c)",
            "not 1 of them",
            "(a or b) and c",
        ];
        (select(conditions), proptest::collection::vec(selection, 3)).prop_map(|(condition, selections)| {
            let head = "title = \"x\"\nseverity = \"low\"";
            let mut text = format!("[[rule]]\nid = \"ID\"\n{head}\ncondition = \"{condition}\"\n");
            for (name, alternatives) in ["a", "b", "c"].iter().zip(selections) {
                for alternative in alternatives {
                    let _ = write!(text, "[[rule.select.{name}]]\n{alternative}");
                }
            }
            text
        })
    }

    fn exec() -> impl Strategy<Value = Exec> {
        let exes = vec![
            "/usr/bin/nc.openbsd",
            "/bin/nc",
            "/usr/bin/curl",
            "/bin/sh",
            "/usr/bin/dash",
            "/bin/busybox",
            "/tmp/x",
            "/memfd:nc (deleted)",
            "/tmp/nc (deleted)",
            "/lib64/ld-linux-x86-64.so.2",
            "/usr/bin/python3.11",
            "/",
        ];
        let words = vec![
            "nc",
            "NC",
            "ncat7",
            "curl",
            "sh",
            "/bin/sh",
            "/usr/bin/nc",
            "-e",
            "-le",
            "-l",
            "x y",
            "x",
            "y",
            " ",
            "",
            "/tmp/a.sh",
            "-p",
            "80",
            "--p=80",
            "busybox",
            "root",
            "[kworker]",
        ];
        let argv = proptest::option::weighted(0.9, proptest::collection::vec(select(words.clone()), 0..5));
        let exe = proptest::option::weighted(0.9, select(exes));
        let comm = proptest::option::of(select(words));
        (exe, argv, comm, any::<bool>()).prop_map(|(exe, argv, comm, cut)| {
            let mut exec =
                Exec { image: Image::new(exe.map(str::as_bytes), argv.as_deref()), ..Exec::default() };
            if cut {
                exec.image.cut_arguments(exec.image.raw_arguments().map_or(0, <[u8]>::len) / 2);
            }
            if let Some(comm) = comm {
                exec.details.set_comm(comm.as_bytes());
            }
            exec.details.uids = Some([0; 4]);
            exec
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn nothing_that_matches_is_let_go(
            text in proptest::collection::vec(rule(), 1..4),
            execs in proptest::collection::vec(exec(), 1..12),
        ) {
            let numbered = text.iter().enumerate();
            let text: String = numbered.map(|(number, rule)| rule.replace("ID", &format!("r{number}"))).collect();
            let rules = rules(&text);
            let surroundings = Surroundings {
                accounts: Accounts::none(),
                namespaces: Namespaces::default(),
                processes: Box::new(NoProcesses),
                files: std::sync::Arc::default(),
            };
            for exec in &execs {
                let subject = rules.subject(exec, &surroundings, &HostClock);
                let today = Date { year: 2026, month: 1, day: 1 };
                let found: Vec<&str> =
                    rules.matching(&subject, today).iter().map(|found| found.rule.id.as_str()).collect();
                // One by one, without the index.
                let expected: Vec<&str> = rules
                    .rules()
                    .iter()
                    .filter(|rule| evaluate(rule, &subject) == Truth::True)
                    .map(|rule| rule.id.as_str())
                    .collect();
                prop_assert_eq!(&found, &expected, "{:?}\n{}", exec, text);
                let hints = |comm| Hints { comm, ..Hints::default() };
                let passes = rules.could_match(&exec.image, hints(None))
                    || rules.wants_comm(&exec.image)
                        && rules.could_match(&exec.image, hints(exec.details.comm()));
                prop_assert!(passes || expected.is_empty(), "{:?}\n{}", exec, text);
            }
        }
    }
}
