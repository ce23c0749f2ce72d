//! The storm: spawns many short programs and measures the daemon beside its peers, in one run.
//!
//! `cargo bench --bench storm -- --help`
//!
//! A figure of one machine on one day says little, so the results are ratios: the monitors take turns within each
//! repetition, in an order that rotates, and each figure is the median over the repetitions. A small round before the
//! first one warms caches and makes lasting effects (a kernel that has ever audited gives each process an audit context;
//! a listener that ends without saying so leaves the kernel building events) the same for all that is measured.

mod interrupt;
mod measure;
mod monitors;
mod report;
mod scenarios;
mod spawn;
mod target;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use monitors::Kind;

/// What can go wrong ends the benchmark with a message.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Spawns storms of short programs and measures execwatch beside its peers. Needs root.
#[derive(Parser, Debug)]
#[command(name = "storm")]
struct Options {
    /// What is measured
    #[arg(long, value_enum, default_value = "all")]
    scenario: Scenario,
    /// Programs spawned in each storm
    #[arg(long, value_name = "N", default_value_t = 20_000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    execs: u32,
    /// Processes that spawn at the same time; of several numbers, each is measured
    #[arg(long, value_name = "W,...", value_delimiter = ',', default_value = "2",
          value_parser = clap::value_parser!(u32).range(1..=256))]
    workers: Vec<u32>,
    /// Programs per second, all workers together [default: as fast as it goes]
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Repetitions, of which the median is shown
    #[arg(long, value_name = "R", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Monitors of the scenario nomatch; those that are not installed are skipped
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_enum,
          default_values_t = Kind::value_variants().to_vec())]
    monitors: Vec<Kind>,
    /// Program to spawn [default: a static one that only exits]
    #[arg(long, value_name = "PATH")]
    target: Option<PathBuf>,
    /// Folder of rules that the daemon has besides the shipped ones
    #[arg(long, value_name = "DIR")]
    rules: Option<PathBuf>,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
    /// Added by cargo; means nothing here
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// No rule matches: what each monitor captures and costs
    Nomatch,
    /// Each program is an alert: are all of them written?
    Match,
    /// Time from an exec to its alert at a syslog socket
    Latency,
    /// The daemon with nothing to do
    Idle,
    /// All of these
    All,
}

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let outcome = match words.split_first() {
        Some((first, order)) if first == spawn::WORKER => spawn::work(order),
        _ => measure_all(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storm: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure_all() -> Result<()> {
    let options = Options::parse();
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root");
        return Ok(());
    }
    interrupt::take_signals()?;
    let results = scenarios::run(&options)?;
    if options.json {
        println!("{:#}", report::json(&results));
    } else {
        print!("{}", report::table(&results));
    }
    Ok(())
}
