//! Events made from the values of a rule, so that many match it and many nearly do.

use serde_yaml_ng::Value;

use crate::reference::Event;

/// Numbers that look random and are the same in each run (xorshift).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }

    fn one_in(&mut self, number: usize) -> bool {
        self.below(number) == 0
    }

    fn word(&mut self, list: &[&'static str]) -> &'static str {
        list[self.below(list.len())]
    }

    pub(crate) fn pick<'l, T>(&mut self, list: &'l [T]) -> &'l T {
        &list[self.below(list.len())]
    }
}

/// Texts that fit the regular expressions of the rules.
const FOR_EXPRESSIONS: &[&str] = &[
    " -D",
    "-W 00 11 22 33 ",
    "-R'0aff'",
    " -d ",
    " -F ",
    " -T ",
    " --inode ",
    " -lid ",
    " --directory ",
    " -O ",
    "Google a",
    "Gogle b",
    "wget  http://10.20.30.40/",
    "WGET https://1.2.3.4/x",
    "a\nsecond\nthird",
    "x1y pxr",
    "-W \"00 11\" ",
    "second third",
];
const FILLERS: &[&str] = &["", " ", "x", " -v ", "/tmp/", "/etc/", "É", "\n", " a ", "=1", "ß"];
const PROGRAMS: &[&str] = &[
    "/usr/bin/cat",
    "/usr/bin/nc",
    "/bin/bash",
    "/tmp/x",
    "/usr/bin/one",
    "/sbin/init",
    "/opt/daemon",
    "/usr/bin/NC",
];

/// An event that tries to fulfil the rule, and more often than not misses something.
pub(crate) fn event(rule: &Value, random: &mut Random) -> Event {
    let mut texts: Vec<(&'static str, Vec<String>)> = Vec::new();
    for (name, selection) in rule["detection"].as_mapping().unwrap() {
        let name = name.as_str().unwrap();
        let wanted = if name.contains("filter") { random.one_in(3) } else { !random.one_in(4) };
        if name != "condition" && wanted {
            match selection {
                Value::Sequence(maps) => fulfil(random.pick(maps), &mut texts, random),
                map => fulfil(map, &mut texts, random),
            }
        }
    }
    let of = |field: &str, default: &str, random: &mut Random| {
        let found = texts.iter().find(|(name, _)| *name == field).map(|(_, pieces)| pieces.concat());
        let text = found.unwrap_or_else(|| default.to_owned());
        // A NUL ends an argument, and lies in none.
        let text = if random.one_in(2) { mutated(text, random) } else { text };
        text.replace('\0', "")
    };
    let mut event = Event::new();
    let image = of("Image", random.word(PROGRAMS), random);
    event.insert("Image", if image.starts_with('/') { image } else { format!("/{image}") });
    event.insert("CommandLine", of("CommandLine", "run it", random));
    // A process has a working directory.
    let folder = of("CurrentDirectory", "/", random);
    event.insert("CurrentDirectory", if folder.is_empty() { "/".to_owned() } else { folder });
    event.insert("ProcessId", (2 + random.below(600)).to_string());
    if !random.one_in(4) {
        let own = event["Image"].clone();
        let parent = of("ParentImage", random.word(PROGRAMS), random);
        event.insert("ParentImage", if random.one_in(4) { own } else { parent });
        event.insert("ParentCommandLine", of("ParentCommandLine", "sh daemon", random));
        event.insert("ParentProcessId", (2 + random.below(400)).to_string());
        if random.one_in(2) {
            event.insert("ParentUser", random.word(&["root", "www-data"]).to_owned());
        }
    }
    if !random.one_in(5) {
        event.insert("User", random.word(&["root", "root", "root", "ROOT", "alice", "www-data"]).to_owned());
    }
    if !random.one_in(3) {
        event.insert("LogonId", random.word(&["0", "0", "0", "1000", "33"]).to_owned());
    }
    event
}

/// Adds texts that fulfil the entries of a map.
fn fulfil(map: &Value, texts: &mut Vec<(&'static str, Vec<String>)>, random: &mut Random) {
    const FIELDS: [&str; 5] =
        ["Image", "CommandLine", "CurrentDirectory", "ParentImage", "ParentCommandLine"];
    for (key, value) in map.as_mapping().unwrap() {
        let key = key.as_str().unwrap();
        let field = key.split('|').next().unwrap();
        let Some(field) = FIELDS.into_iter().find(|known| *known == field) else { continue };
        let values: Vec<&Value> = match value {
            Value::Sequence(list) if key.ends_with("all") => list.iter().collect(),
            Value::Sequence(list) => vec![random.pick(list)],
            one => vec![one],
        };
        let mut pieces: Vec<String> = Vec::new();
        for value in values {
            let value = match value {
                Value::String(value) => value.clone(),
                Value::Number(value) => value.to_string(),
                _ => continue,
            };
            let text = if key.contains("|re") {
                let expression = regex::Regex::new(&value).unwrap();
                let fitting: Vec<&str> =
                    FOR_EXPRESSIONS.iter().copied().filter(|text| expression.is_match(text)).collect();
                let any = random.one_in(4) || fitting.is_empty();
                random.word(if any { FOR_EXPRESSIONS } else { &fitting }).to_owned()
            } else {
                filled(&encoded(key, &value, random), random)
            };
            if !key.contains("startswith") && key.contains('|') {
                pieces.push(random.word(FILLERS).to_owned());
            }
            pieces.push(text);
            if !key.contains("endswith") && key.contains('|') {
                pieces.push(random.word(FILLERS).to_owned());
            }
        }
        match texts.iter_mut().find(|(name, _)| *name == field) {
            // What has to begin comes first.
            Some((_, own)) if key.contains("startswith") => {
                own.splice(0..0, pieces);
            }
            Some((_, own)) => own.extend(pieces),
            None => texts.push((field, pieces)),
        }
    }
}

/// What the encodings of the own rules look like in a command line, worked out with base64(1) and iconv(1).
fn encoded(key: &str, value: &str, random: &mut Random) -> String {
    let choices: &[&str] = match value {
        "/bin/sh -i" => &["L2Jpbi9zaCAtaQ=="],
        "import socket" => &["aW1wb3J0IHNvY2tldA==", "IGltcG9ydCBzb2NrZXQ=", "eHhpbXBvcnQgc29ja2V0Ow=="],
        "curl http" => &["Y3VybCBodHRwczovL3g=", "eGN1cmwgaHR0cA==", "eHhjdXJsIGh0dHA="],
        "whoami" => &["dwBoAG8AYQBtAGkA", "IHcAaABvAGEAbQBpAA=="],
        "id" if key.contains("utf16be") => &["AGkAZA=="],
        " -enc /x" => &[" -enc /x", " /enc -x", " \u{2013}enc \u{2015}x", " -enc +x", " \u{2014}enc /x"],
        value => return value.to_owned(),
    };
    random.word(choices).to_owned()
}

/// A value with something in the place of its wildcards.
fn filled(value: &str, random: &mut Random) -> String {
    let mut text = String::new();
    let mut characters = value.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if random.one_in(8) => text.push('\\'),
            '\\' => match characters.next_if(|next| matches!(next, '*' | '?' | '\\')) {
                Some(escaped) => text.push(escaped),
                None => text.push('\\'),
            },
            '*' if !random.one_in(8) => {
                let filler = random.word(FILLERS);
                text.push_str(filler);
            }
            '?' if !random.one_in(8) => text.push(*random.pick(&['x', 'é', '€', '?'])),
            character => text.push(character),
        }
    }
    text
}

fn mutated(text: String, random: &mut Random) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    let at = random.below(characters.len() + 1);
    match random.below(7) {
        0 => return text.to_uppercase(),
        1 => return text.to_lowercase(),
        2 if at < characters.len() => {
            characters.remove(at);
        }
        3 => characters.insert(at, *random.pick(&[' ', 'x', '*', '?', '\\', '/', 'É', '\n'])),
        4 => characters.truncate(at),
        5 if at < characters.len() => {
            let other: Vec<char> = characters[at].to_uppercase().collect();
            characters.splice(
                at..=at,
                if other == [characters[at]] { characters[at].to_lowercase().collect() } else { other },
            );
        }
        _ => return format!("{}{text}{}", random.word(FILLERS), random.word(FILLERS)),
    }
    characters.into_iter().collect()
}
