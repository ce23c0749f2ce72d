//! The command: files, messages, exit codes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::{data, files};

fn execwatch(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_execwatch")).args(arguments).current_dir(folder).output().unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn all_rules_of_others_import_and_load() {
    let work = tempfile::tempdir().unwrap();
    let from = data("sigma");
    let import = ["import", "sigma", from.to_str().unwrap(), "--out", "out"];
    let output = execwatch(&import, work.path());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "execwatch: 62 rules from 62 files\n");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
    let out = work.path().join("out");
    assert_eq!(names(&out).len(), 62);
    let check = execwatch(&["check", "--rules", "out"], work.path());
    assert_eq!((String::from_utf8_lossy(&check.stderr).as_ref(), check.status.code()), ("", Some(0)));
    // Authors are a condition of the licence.
    for path in files("sigma") {
        let sigma: serde_yaml_ng::Value =
            serde_yaml_ng::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let toml = std::fs::read_to_string(out.join(format!("sigma-{stem}.toml"))).unwrap();
        for key in ["author", "title", "id"] {
            assert!(toml.contains(sigma[key].as_str().unwrap()), "{stem}: {key}");
        }
        for reference in sigma["references"].as_sequence().unwrap() {
            assert!(toml.contains(reference.as_str().unwrap()), "{stem}: {reference:?}");
        }
    }
    // The same again changes nothing; what differs is not overwritten, and then nothing is.
    assert_eq!(execwatch(&import, work.path()).status.code(), Some(0));
    let edited = out.join("sigma-proc_creation_lnx_doas_execution.toml");
    let gone = out.join("sigma-proc_creation_lnx_nohup.toml");
    std::fs::write(&edited, "# mine\n").unwrap();
    std::fs::remove_file(&gone).unwrap();
    let refused = execwatch(&import, work.path());
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("doas_execution.toml is there and differs; --force overwrites it"), "{message}");
    assert_eq!(refused.status.code(), Some(74));
    assert_eq!((std::fs::read_to_string(&edited).unwrap().as_str(), gone.exists()), ("# mine\n", false));
    let forced = execwatch(&[&import[..], &["--force"]].concat(), work.path());
    assert_eq!((forced.status.code(), gone.exists()), (Some(0), true));
    assert!(std::fs::read_to_string(&edited).unwrap().contains("doas"));
    // No draft is left.
    assert_eq!(names(&out).len(), 62);
}

#[test]
fn standard_output_is_one_file() {
    let work = tempfile::tempdir().unwrap();
    let output = execwatch(&["import", "sigma", data("sigma-own").to_str().unwrap()], work.path());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let rules = work.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    std::fs::write(rules.join("own.toml"), output.stdout).unwrap();
    let check = execwatch(&["check", "--rules", "rules"], work.path());
    assert_eq!(check.status.code(), Some(0), "{}", String::from_utf8_lossy(&check.stderr));
}

#[test]
fn a_file_with_a_mistake_gives_nothing_and_the_others_do() {
    let work = tempfile::tempdir().unwrap();
    let from = work.path().join("from");
    std::fs::create_dir_all(from.join("deep/.hidden")).unwrap();
    let good = std::fs::read_to_string(data("sigma-own").join("case.yml")).unwrap();
    std::fs::write(from.join("good.yml"), &good).unwrap();
    std::fs::write(from.join("deep/.hidden/not-looked-at.yml"), "x: [").unwrap();
    std::fs::write(from.join("notes.txt"), "x: [").unwrap();
    // A good rule beside a bad one, in one file.
    std::fs::write(from.join("deep/two.yaml"), format!("{good}---\ntitle: x\ncorrelation: {{}}\n")).unwrap();
    // The same rule twice, and two files of one name.
    std::fs::write(from.join("same.yml"), &good).unwrap();
    std::fs::write(from.join("deep/good.yaml"), good.replace("Case", "Another")).unwrap();
    std::os::unix::fs::symlink(&from, from.join("circle")).unwrap();
    let output = execwatch(&["import", "sigma", "from", "gone.yml", "--out", "out"], work.path());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    for part in [
        "from/deep/two.yaml:",
        "`correlation`: a correlation rule joins several events",
        "gone.yml: cannot read the file",
        "would be written to the same file as from/deep/good.yaml",
        "execwatch: 2 rules from 2 files; 3 files not translated",
    ] {
        assert!(message.contains(part), "{part}\n{message}");
    }
    assert_eq!(names(&work.path().join("out")), ["sigma-good.toml", "sigma-same.toml"]);
}

#[test]
fn what_cannot_be_written_is_said() {
    let work = tempfile::tempdir().unwrap();
    std::fs::write(work.path().join("file"), "").unwrap();
    let from = data("sigma-own");
    let output = execwatch(&["import", "sigma", from.to_str().unwrap(), "--out", "file"], work.path());
    assert_eq!(output.status.code(), Some(74), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(execwatch(&["import", "sigma"], work.path()).status.code(), Some(64));
    assert_eq!(execwatch(&["import", "sigma", "x", "--force"], work.path()).status.code(), Some(64));
    let empty = execwatch(&["import", "sigma", "."], work.path());
    assert_eq!(empty.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&empty.stderr).contains("there is no *.yml or *.yaml in this folder"));
}

/// Each folder below `golden/sigma` holds Sigma files and what is said of them and made of them.
#[test]
fn messages_and_rules_are_as_they_were() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sigma");
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(!folders.is_empty());
    for folder in folders {
        let output = execwatch(&["import", "sigma", "."], &folder);
        let found = format!(
            "{}{}exit code {}\n",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            output.status.code().unwrap()
        );
        let path = folder.join("expected");
        if std::env::var_os("EXECWATCH_TESTS_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(expected, found, "{}", path.display());
    }
}
