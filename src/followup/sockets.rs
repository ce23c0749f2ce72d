//! Sockets, and the tables of them in /proc/PID/net (proc_pid_net(5)).
//!
//! Only inodes that a process holds are looked for; a table is bytes from outside, so that a line which is not as
//! expected is passed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::process::parse::number;

/// What a socket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// AF_UNIX.
    Unix,
    /// SOCK_RAW over IP.
    Raw,
    /// ICMP by IPPROTO_ICMP, as ping uses it.
    Icmp,
    /// AF_PACKET: sees and sends whole frames.
    Packet,
    /// AF_NETLINK.
    Netlink,
    /// None of these, or it could not be found.
    #[default]
    Other,
}

impl Protocol {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Unix => "unix",
            Protocol::Raw => "raw",
            Protocol::Icmp => "icmp",
            Protocol::Packet => "packet",
            Protocol::Netlink => "netlink",
            Protocol::Other => "other",
        }
    }
}

/// A socket at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Socket {
    /// Its inode, which names it.
    pub inode: u64,
    /// What it speaks.
    pub protocol: Protocol,
    /// Its own address.
    pub local: Option<SocketAddr>,
    /// The other end's.
    pub remote: Option<SocketAddr>,
    /// A state of TCP, or whether UDP is connected.
    pub state: Option<&'static str>,
    /// Bytes sent, and received, where the kernel tells.
    pub sent: Option<u64>,
    /// Bytes received.
    pub received: Option<u64>,
    /// The name of a Unix socket; an abstract one begins with `@`.
    pub path: Option<Box<[u8]>>,
}

/// The state of listening.
pub const LISTEN: &str = "listen";
/// The state of a connection that is up.
pub const ESTABLISHED: &str = "established";

/// The word for a state, numbered as in include/net/tcp_states.h. UDP uses two of them.
pub fn state(protocol: Protocol, number: u8) -> Option<&'static str> {
    const NAMES: [&str; 12] = [
        ESTABLISHED,
        "syn-sent",
        "syn-received",
        "fin-wait-1",
        "fin-wait-2",
        "time-wait",
        "closed",
        "close-wait",
        "last-ack",
        LISTEN,
        "closing",
        "syn-received",
    ];
    match protocol {
        Protocol::Tcp => NAMES.get(usize::from(number).checked_sub(1)?).copied(),
        Protocol::Udp => Some(if number == 1 { "connected" } else { "unconnected" }),
        _ => None,
    }
}

/// An address as people write it: an IPv4 address mapped into IPv6 is one of IPv4.
pub fn address(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

/// The other end, if there is one: all zeroes stand for none.
pub fn other_end(address: SocketAddr) -> Option<SocketAddr> {
    Some(address).filter(|address| !(address.ip().is_unspecified() && address.port() == 0))
}

/// How the lines of a table are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// tcp, udp, raw, icmp and their siblings for IPv6.
    Inet,
    /// unix.
    Unix,
    /// A table of which only the inode's column is of use.
    InodeAt(usize),
}

/// A line of a table; `None` for the heading and whatever is not understood.
pub fn line(bytes: &[u8], protocol: Protocol, layout: Layout) -> Option<Socket> {
    let mut fields = bytes.split(|byte| byte.is_ascii_whitespace()).filter(|field| !field.is_empty());
    match layout {
        Layout::Inet => {
            let local = hexadecimal_address(fields.nth(1)?)?;
            let remote = hexadecimal_address(fields.next()?)?;
            let number_of_state = u8::try_from(hexadecimal(fields.next()?)?).ok()?;
            Some(Socket {
                inode: number(fields.nth(5)?)?,
                protocol,
                local: Some(local),
                remote: other_end(remote),
                state: state(protocol, number_of_state),
                ..Socket::default()
            })
        }
        Layout::Unix => {
            let inode = number(fields.nth(6)?)?;
            Some(Socket { inode, protocol, path: fields.next().map(Into::into), ..Socket::default() })
        }
        Layout::InodeAt(column) => {
            Some(Socket { inode: number(fields.nth(column)?)?, protocol, ..Socket::default() })
        }
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// `0100007F:1F90`: words in the host's byte order, then the port.
fn hexadecimal_address(text: &[u8]) -> Option<SocketAddr> {
    let colon = text.iter().position(|&byte| byte == b':')?;
    let (words, port) = (text.get(..colon)?, text.get(colon + 1..)?);
    let port = u16::try_from(hexadecimal(port)?).ok()?;
    let mut bytes = [0; 16];
    match words.len() {
        8 => {
            let word: [u8; 4] = hexadecimal(words)?.to_ne_bytes();
            Some(address(IpAddr::V4(Ipv4Addr::from(word)), port))
        }
        32 => {
            for (word, place) in words.chunks(8).zip(bytes.chunks_mut(4)) {
                place.copy_from_slice(&hexadecimal(word)?.to_ne_bytes());
            }
            Some(address(IpAddr::V6(Ipv6Addr::from(bytes)), port))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_of_each_table() {
        let tcp = b"   1: 0100007F:1F90 057100CB:115C 01 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0000 20 4 30 10 -1";
        let found = line(tcp, Protocol::Tcp, Layout::Inet).unwrap();
        assert_eq!((found.inode, found.state), (4711, Some("established")));
        assert_eq!(found.local, Some("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(found.remote, Some("203.0.113.5:4444".parse().unwrap()));
        let udp6 = b"  92: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 07 0:0 00:0 0 0 0 99 2";
        let found = line(udp6, Protocol::Udp, Layout::Inet).unwrap();
        assert_eq!((found.local, found.remote), (Some("[::1]:53".parse().unwrap()), None));
        assert_eq!(found.state, Some("unconnected"));
        let mapped =
            b"0: 0000000000000000FFFF00000100007F:0016 00000000000000000000000000000000:0000 0A a b c 0 0 5 x";
        let found = line(mapped, Protocol::Tcp, Layout::Inet).unwrap();
        assert_eq!((found.local, found.state), (Some("127.0.0.1:22".parse().unwrap()), Some(LISTEN)));
        let unix = b"0000000000000000: 00000002 00000000 00010000 0001 01 17 /run/a.sock";
        let found = line(unix, Protocol::Unix, Layout::Unix).unwrap();
        assert_eq!((found.inode, found.path.as_deref()), (17, Some(&b"/run/a.sock"[..])));
        let packet = b"0000000000000000 3      3    0003   2     1 0      0      31";
        assert_eq!(line(packet, Protocol::Packet, Layout::InodeAt(8)).unwrap().inode, 31);
        assert_eq!(line(b"  sl  local_address rem_address   st tx_queue", Protocol::Tcp, Layout::Inet), None);
    }

    proptest! {
        #[test]
        fn any_line_ends_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[0-9A-F: ]{0,150}") {
            for bytes in [&bytes[..], text.as_bytes()] {
                for layout in [Layout::Inet, Layout::Unix, Layout::InodeAt(8)] {
                    let found = line(bytes, Protocol::Tcp, layout);
                    prop_assert!(found.is_none_or(|socket| socket.protocol == Protocol::Tcp));
                }
            }
        }
    }
}
