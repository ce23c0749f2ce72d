//! What does not change from one time to another that an intrusion is played: the incident without pids, times and sizes.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

/// The story in lines. `names` are written in the place of what differs each time: folders and ports.
pub(crate) fn outline(story: &Value, names: &[(String, &str)]) -> String {
    let mut text = String::new();
    let incident = &story["incident"];
    writeln!(text, "incident: {}, {}, user {}", incident["severity"], incident["title"], incident["user"])
        .unwrap();
    for part in ["who", "way_in"] {
        for answer in list(&story[part]) {
            writeln!(text, "{part}: {}: {} {}", answer["what"], answer["answer"], answer["sure"]).unwrap();
        }
    }
    let processes = list(&story["processes"]);
    for process in processes.iter().filter(|process| process["parent"].is_null()) {
        tree(&mut text, processes, process, 0);
    }
    for tool in list(&story["tools"]) {
        let [name, category, attack, count] = ["name", "category", "attack", "count"].map(|key| &tool[key]);
        writeln!(text, "tool: {name} {category} {attack} {count}").unwrap();
    }
    let mut remotes = Vec::new();
    for remote in list(&story["remotes"]) {
        let told = |key: &str| if remote[key].is_u64() { "known" } else { "unknown" };
        let address = remote["address"].as_str().unwrap();
        // Of the visitor himself there is now and then something to be seen.
        if let Some((_, name)) = names.iter().find(|(found, _)| address.ends_with(found.as_str())) {
            let (sent, received) = (told("bytes_out"), told("bytes_in"));
            remotes
                .push(format!("remote: {} {name}, sent {sent}, received {received}\n", remote["transport"]));
        }
    }
    // They are in the order of their ports.
    remotes.sort();
    text += &remotes.concat();
    // What the programs were given by whoever runs the test is not theirs.
    let own = |file: &&Value| names.iter().any(|(found, _)| file["path"].as_str().unwrap().contains(found));
    for file in list(&story["files"]).iter().filter(own) {
        let now = &file["now"];
        writeln!(text, "file: {} {} {}", file["path"], now["owner"], now["mode"]).unwrap();
    }
    for (found, name) in names {
        text = text.replace(found.as_str(), name);
    }
    // Of the answers, which hold pids.
    let mut plain = String::new();
    let mut digits = false;
    for character in text.replace("(pid ", "(pid #").chars() {
        digits = character == '#' || digits && character.is_ascii_digit();
        if !digits || character == '#' {
            plain.push(character);
        }
    }
    plain
}

/// A process with all that it made, in the order in which they were made.
fn tree(text: &mut String, processes: &[Value], process: &Value, depth: usize) {
    let (start, end) = (" ".repeat(depth * 2), if process["running"] == true { "running" } else { "ended" });
    let outcome = process["outcome"].as_str().unwrap_or(end);
    let programs = list(&process["programs"]);
    if programs.is_empty() {
        writeln!(text, "{start}(forked) {outcome}").unwrap();
    }
    for program in programs {
        writeln!(text, "{start}{} {outcome}", program["args"]).unwrap();
        if let Some(rule) = program["alert"]["rule"].as_str() {
            writeln!(text, "{start}  ! {} {rule}", program["alert"]["severity"]).unwrap();
        }
    }
    for child in processes.iter().filter(|child| child["parent"] == process["key"]) {
        tree(text, processes, child, depth + 1);
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Compares with the golden file, or writes it anew (`EXECWATCH_TESTS_WRITE_GOLDEN`).
pub(crate) fn compare(outline: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/incident/rehearsal.outline");
    if std::env::var_os("EXECWATCH_TESTS_WRITE_GOLDEN").is_some() {
        std::fs::write(&file, outline).unwrap();
    }
    assert_eq!(outline, std::fs::read_to_string(&file).unwrap());
}
