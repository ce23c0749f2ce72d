//! The files that are compiled in. A test compares the list with the folders.

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../config/", $name)))),*]
    };
}

/// Name below `config/`, and content.
pub const FILES: &[(&str, &str)] = files![
    "rules.d/context.toml",
    "rules.d/discovery.toml",
    "rules.d/evasion.toml",
    "rules.d/exfiltration.toml",
    "rules.d/ingress.toml",
    "rules.d/macros.toml",
    "rules.d/network-utility.toml",
    "rules.d/remote-access.toml",
    "rules.d/reverse-shell.toml",
    "rules.d/scanning.toml",
    "rules.d/sniffing.toml",
    "rules.d/tunnel.toml",
    "utilities.d/dns.toml",
    "utilities.d/exfil-cloud.toml",
    "utilities.d/info.toml",
    "utilities.d/netcat.toml",
    "utilities.d/remote-access.toml",
    "utilities.d/scanner.toml",
    "utilities.d/shell-net.toml",
    "utilities.d/sniffer.toml",
    "utilities.d/transfer.toml",
    "utilities.d/tunnel.toml",
    "utilities.d/web-client.toml",
];

/// Tests of the compiled-in rules. Only `check` reads them, so that they cost the daemon no memory: what is not read of
/// an executable is not loaded.
pub const TESTS: &[(&str, &str)] = files![
    "tests.d/context.toml",
    "tests.d/discovery.toml",
    "tests.d/evasion.toml",
    "tests.d/exfiltration.toml",
    "tests.d/ingress.toml",
    "tests.d/network-utility.toml",
    "tests.d/ordinary.toml",
    "tests.d/remote-access.toml",
    "tests.d/reverse-shell.toml",
    "tests.d/scanning.toml",
    "tests.d/sniffing.toml",
    "tests.d/tunnel.toml",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_compiled_in() {
        let config = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        let mut found = Vec::new();
        for folder in ["rules.d", "tests.d", "utilities.d"] {
            for entry in std::fs::read_dir(config.join(folder)).unwrap() {
                found.push(format!("{folder}/{}", entry.unwrap().file_name().to_string_lossy()));
            }
        }
        found.sort();
        let mut listed: Vec<&str> = FILES.iter().chain(TESTS).map(|(name, _)| *name).collect();
        listed.sort_unstable();
        assert_eq!(found, listed);
    }
}
