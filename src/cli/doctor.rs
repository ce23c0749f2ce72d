//! `execwatch doctor`

use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::{Files, print, report};
use crate::config::DEFAULT_PATH;
use crate::diagnostics::{Diagnostics, counted};
use crate::doctor::{self, Finding, Level};
use crate::exit;

/// Exit code when there are warnings.
const WARNINGS: u8 = 1;
/// Exit code when execwatch cannot work here.
const CANNOT_WORK: u8 = 2;

#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct DoctorArguments {
    #[command(flatten)]
    files: Files,
    /// Write what was found as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'f> {
    worst: Level,
    findings: &'f [Finding],
}

pub(super) fn run(arguments: &DoctorArguments) -> u8 {
    let diagnostics = Diagnostics::default();
    let (config, _) = arguments.files.load(&diagnostics);
    let file = arguments.files.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
    let mut findings = doctor::examine(&config, file);
    if report(&diagnostics.into_list()).is_some() {
        findings.push(mistakes());
    }
    let worst = doctor::worst(&findings);
    let text = if arguments.json { json(worst, &findings) } else { text(worst, &findings) };
    match print(&text) {
        exit::OK => match worst {
            Level::Fatal => CANNOT_WORK,
            Level::Warning => WARNINGS,
            Level::Good | Level::Note => exit::OK,
        },
        failed => failed,
    }
}

fn mistakes() -> Finding {
    Finding {
        area: "files",
        level: Level::Fatal,
        found: "there are mistakes in the configuration or the rules, shown above".to_owned(),
        remedy: Some("mend them; `execwatch check` shows whether any is left".to_owned()),
    }
}

fn json(worst: Level, findings: &[Finding]) -> String {
    serde_json::to_string_pretty(&Report { worst, findings }).unwrap_or_default() + "\n"
}

fn text(worst: Level, findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        text += &format!("{:8} {:11} {}\n", finding.level.as_str(), finding.area, finding.found);
        if let Some(remedy) = &finding.remedy {
            text += &format!("{:8} {:11} -> {remedy}\n", "", "");
        }
    }
    let warnings = findings.iter().filter(|finding| finding.level == Level::Warning).count();
    text + &match worst {
        Level::Fatal => "execwatch cannot work here: see what is fatal.\n".to_owned(),
        Level::Warning => {
            format!("execwatch works here, with {}.\n", counted(warnings, "warning", "warnings"))
        }
        Level::Good | Level::Note => "execwatch works here.\n".to_owned(),
    }
}
