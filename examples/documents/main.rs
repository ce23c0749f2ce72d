//! Writes the manual pages and the shell completions into a folder: what the packages ship, made from the definitions that
//! the program itself uses. An example, so that nothing of it is linked into the daemon.

mod pages;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap_complete::{Shell, generate_to};

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [folder] = arguments.as_slice() else {
        eprintln!("usage: documents FOLDER (SOURCE_DATE_EPOCH gives the date of the pages)");
        return ExitCode::from(64);
    };
    match write(folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("documents: cannot write below {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path) -> io::Result<()> {
    let man = folder.join("man");
    std::fs::create_dir_all(&man)?;
    let seconds = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.parse().map_err(|_| io::Error::other("SOURCE_DATE_EPOCH is not a number"))?,
        Err(_) => execwatch::clock::now().wall_s,
    };
    for page in pages::all(&pages::date(seconds)) {
        std::fs::write(man.join(page.file), page.text)?;
    }
    let completions = folder.join("completions");
    std::fs::create_dir_all(&completions)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut execwatch::cli::command(), "execwatch", &completions)?;
    }
    Ok(())
}
