//! `[[output.remote]]`: syslog servers on the network.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::output::{FORMATS, Format};
use super::syslog::{Header, Protocol, tag};
use super::{absolute_path, moment, set};
use crate::document::{Located, Section};

/// How messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A datagram each (RFC 5426).
    Udp,
    /// A stream (RFC 6587).
    Tcp,
    /// A stream with TLS (RFC 5425).
    Tls,
}

/// How messages are told apart in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Its length in digits and a space before each (RFC 6587 3.4.1).
    OctetCounting,
    /// A newline after each (RFC 6587 3.4.2).
    Newline,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// How messages travel to it.
    pub transport: Transport,
    /// Its name or address, the latter without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// `[output.remote.tls]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates of the authorities that may have signed the server's; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// The name that the server's certificate must have; `None`: the one in its URL.
    pub server_name: Option<String>,
    /// Files of the client's certificate and private key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// `[[output.remote]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// What it is called in messages.
    pub name: String,
    /// The servers, the preferred one first.
    pub servers: Vec<Server>,
    /// How messages are told apart in a stream.
    pub framing: Framing,
    /// The head of messages.
    pub header: Header,
    /// How a record is written.
    pub format: Format,
    /// For servers with TLS.
    pub tls: Tls,
    /// How long a connection may take to be made, with all that belongs to it but the resolution of a name.
    pub connect_timeout: Duration,
    /// How long a message may take to be taken, and to be acknowledged.
    pub write_timeout: Duration,
    /// How long another server is used before a better one is tried again.
    pub return_after: Duration,
}

const FRAMINGS: [(&str, Framing); 2] =
    [("octet-counting", Framing::OctetCounting), ("newline", Framing::Newline)];
/// Servers of one output.
const MOST_SERVERS: usize = 8;
/// The longest name of a host (RFC 1035 2.3.4).
const LONGEST_HOST: usize = 253;
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
        };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

impl Server {
    /// Reads `tls://host:6514`; the error says what is wrong with it. Without a port it is the one of the transport.
    pub fn parse(url: &str) -> Result<Server, String> {
        let (scheme, rest) =
            url.split_once("://").ok_or("it must begin with udp://, tcp:// or tls://".to_owned())?;
        let (transport, standard) = match scheme {
            "udp" => (Transport::Udp, 514),
            "tcp" => (Transport::Tcp, 601),
            "tls" => (Transport::Tls, 6514),
            _ => return Err(format!("`{scheme}` is none of udp, tcp and tls")),
        };
        if let Some(beyond) = rest.find(['/', '?', '#', '@']) {
            return Err(format!(
                "nothing but host and port may follow `{scheme}://`, not `{}`",
                &rest[beyond..]
            ));
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or("a bracket is not closed".to_owned())?;
                host.parse::<Ipv6Addr>().map_err(|_| format!("`{host}` is no IPv6 address"))?;
                (host, port)
            }
            None => {
                if rest.matches(':').count() > 1 {
                    return Err("an IPv6 address stands in brackets: tcp://[2001:db8::1]:601".to_owned());
                }
                let (host, port) = rest.split_at(rest.find(':').unwrap_or(rest.len()));
                check_host(host)?;
                (host, port)
            }
        };
        let port = match port.strip_prefix(':') {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                let port = digits.parse().ok().filter(|&port: &u16| port > 0);
                port.ok_or_else(|| format!("`{digits}` is no port: they are 1 to 65535"))?
            }
            Some(other) => return Err(format!("`{other}` is no port: they are 1 to 65535")),
            None if port.is_empty() => standard,
            None => return Err(format!("`{port}` stands after the host")),
        };
        Ok(Server { transport, host: host.to_owned(), port })
    }
}

/// Accepts an IPv4 address or the name of a host.
fn check_host(host: &str) -> Result<(), String> {
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(in_name);
    let name = host.strip_suffix('.').unwrap_or(host);
    // A name whose last part is a number is read as an address by everybody else.
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    let good = match numeric {
        true => host.parse::<Ipv4Addr>().is_ok(),
        false => host.len() <= LONGEST_HOST && name.split('.').all(label),
    };
    if good { Ok(()) } else { Err(format!("`{host}` is neither the name of a host nor an address")) }
}

/// Reads every `[[output.remote]]`.
pub(super) fn read(sections: Vec<Section<'_>>) -> Vec<Remote> {
    let mut names: Vec<String> = Vec::new();
    let mut all = Vec::new();
    for section in sections {
        let enabled = section.flag("enabled").is_none_or(|flag| flag.value);
        if let Some(name) = section.string("name") {
            if names.iter().any(|known| known == name.value) {
                section.error(
                    name.span,
                    format!("there is another [[output.remote]] of the name `{}`", name.value),
                );
            }
            names.push(name.value.to_owned());
        }
        all.extend(Remote::read(section).filter(|_| enabled));
    }
    all
}

impl Remote {
    /// The defaults.
    pub fn new(name: String, servers: Vec<Server>) -> Self {
        Remote {
            name,
            servers,
            framing: Framing::OctetCounting,
            header: Header::new(Protocol::Rfc5424),
            format: Format::Text,
            tls: Tls::default(),
            connect_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(5),
            return_after: Duration::from_secs(60),
        }
    }

    fn read(section: Section<'_>) -> Option<Self> {
        section.require("name");
        let name = tag(&section, "name");
        let servers = read_servers(&section);
        let mut remote = Remote::new(name.clone().unwrap_or_default(), servers);
        remote.header.read(&section, "[output.remote.severity]");
        set(&mut remote.framing, section.choice("framing", &FRAMINGS).map(|choice| choice.value));
        set(&mut remote.format, section.choice("format", &FORMATS).map(|choice| choice.value));
        set(&mut remote.connect_timeout, timeout(&section, "connect-timeout"));
        set(&mut remote.write_timeout, timeout(&section, "write-timeout"));
        let return_after = section.seconds("return-after");
        set(&mut remote.return_after, return_after.map(|seconds| Duration::from_secs(seconds.value)));
        if let Some(table) = section.section("tls", "[output.remote.tls]") {
            let with_tls = |server: &Server| server.transport == Transport::Tls;
            if !remote.servers.is_empty() && !remote.servers.iter().any(with_tls) {
                let message = "[output.remote.tls] is given, but none of the `servers` begins with tls://";
                section.error(table.span(), message);
            }
            remote.tls = Tls::read(table);
        }
        section.finish();
        name.filter(|_| !remote.servers.is_empty())?;
        Some(remote)
    }
}

fn read_servers(section: &Section<'_>) -> Vec<Server> {
    let Some(urls) = section.required_strings("servers") else { return Vec::new() };
    if let Some(beyond) = urls.get(MOST_SERVERS) {
        section.error(beyond.span.clone(), format!("`servers` holds at most {MOST_SERVERS}"));
    }
    let read = |url: &Located<&str>| match Server::parse(url.value) {
        Ok(server) => Some(server),
        Err(error) => {
            section.error(
                url.span.clone(),
                format!("`{}` is no address of a syslog server: {error}", url.value),
            );
            None
        }
    };
    urls.iter().take(MOST_SERVERS).filter_map(read).collect()
}

fn timeout<'d>(section: &Section<'d>, key: &'d str) -> Option<Duration> {
    let text = section.string(key)?;
    let time = moment(text.value).filter(|&time| time <= LONGEST_TIMEOUT);
    if time.is_none() {
        section
            .error(text.span, format!("`{key}` must be a time such as \"500ms\" or \"5s\", at most \"1m\""));
    }
    time
}

impl Tls {
    fn read(section: Section<'_>) -> Self {
        let ca_file = absolute_path(&section, "ca-file");
        let server_name = section.string("server-name").and_then(|name| {
            let address = name.value.parse::<Ipv6Addr>().is_ok();
            match check_host(name.value).err().filter(|_| !address) {
                Some(error) => {
                    section.error(name.span, format!("`server-name`: {error}"));
                    None
                }
                None => Some(name.value.to_owned()),
            }
        });
        let certificate = absolute_path(&section, "certificate-file");
        let key = absolute_path(&section, "key-file");
        // Whichever there is needs the other.
        if section.string("certificate-file").is_some() {
            section.require("key-file");
        } else if section.string("key-file").is_some() {
            section.require("certificate-file");
        }
        section.finish();
        Tls { ca_file, server_name, client: certificate.zip(key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_servers() {
        let read = |url| Server::parse(url).map(|server| (server.to_string(), server.transport));
        for (url, shown, transport) in [
            ("udp://log", "udp://log:514", Transport::Udp),
            ("tcp://10.0.0.1:10514", "tcp://10.0.0.1:10514", Transport::Tcp),
            ("tcp://log.example.org.", "tcp://log.example.org.:601", Transport::Tcp),
            ("tls://[2001:db8::1]:6514", "tls://[2001:db8::1]:6514", Transport::Tls),
            ("tls://[::1]", "tls://[::1]:6514", Transport::Tls),
        ] {
            assert_eq!(read(url), Ok((shown.to_owned(), transport)), "{url}");
        }
        for (url, said) in [
            ("log:514", "must begin with"),
            ("http://log", "`http` is none"),
            ("tcp://", "host is missing"),
            ("tcp://:601", "host is missing"),
            ("tcp://log:", "no port"),
            ("tcp://log:0", "no port"),
            ("tcp://log:65536", "no port"),
            ("tcp://log:+1", "no port"),
            ("tcp://log:514/", "nothing but host and port"),
            ("tcp://me@log:514", "nothing but host and port"),
            ("tcp://2001:db8::1", "in brackets"),
            ("tcp://[2001:db8::1", "not closed"),
            ("tcp://[log]:1", "no IPv6"),
            ("tcp://[::1]x", "after the host"),
            ("tcp://1.2.3", "neither"),
            ("tcp://1.2.3.256", "neither"),
            ("tcp://a..b", "neither"),
            ("tcp://a b", "neither"),
            ("tcp://a\nb", "neither"),
        ] {
            let error = read(url).expect_err(url);
            assert!(error.contains(said), "{url}: {error}");
        }
    }
}
