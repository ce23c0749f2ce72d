//! The wire format of sock_diag(7) for internet sockets, decoded from byte slices.
//!
//! A request asks for all sockets of a family and protocol; the answers are netlink messages with an `inet_diag_msg` (72
//! bytes; include/uapi/linux/inet_diag.h) and attributes each. Kernels differ in the length of `tcp_info`: each member is
//! read only if it is there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{
    NLMSG_DONE, NLMSG_ERROR, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};

use super::sockets::{Protocol, Socket, address, other_end, state};

/// The netlink family (NETLINK_SOCK_DIAG).
pub const FAMILY: isize = 4;

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
const NETLINK_HEADER: usize = 16;
const REQUEST: usize = 56;
const ANSWER: usize = 72;
const ATTRIBUTE_HEADER: usize = 4;
/// `INET_DIAG_INFO`: a `struct tcp_info`.
const INFO: u16 = 2;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Offsets in `struct tcp_info` (include/uapi/linux/tcp.h).
mod tcp_info {
    /// Since 4.1.
    pub(super) const BYTES_ACKED: usize = 120;
    /// Since 4.1.
    pub(super) const BYTES_RECEIVED: usize = 128;
    /// Since 4.19; with what was sent again.
    pub(super) const BYTES_SENT: usize = 200;
    /// Since 4.19.
    pub(super) const BYTES_RETRANSMITTED: usize = 208;
}

/// A request for all sockets of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Those of IPv6, or of IPv4.
    pub v6: bool,
}

impl Request {
    fn number(self) -> u8 {
        if self.protocol == Protocol::Udp { 17 } else { 6 }
    }

    /// The whole datagram.
    pub fn to_datagram(self) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        header.flags = DUMP;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(self));
        message.finalize();
        let mut datagram = vec![0; message.buffer_len()];
        message.serialize(&mut datagram);
        datagram
    }
}

impl NetlinkSerializable for Request {
    fn message_type(&self) -> u16 {
        BY_FAMILY
    }

    fn buffer_len(&self) -> usize {
        REQUEST
    }

    fn serialize(&self, buffer: &mut [u8]) {
        /// Nobody holds those in these states: syn-received, time-wait and new-syn-received.
        const NOBODYS: u32 = 1 << 3 | 1 << 6 | 1 << 12;
        buffer.fill(0);
        buffer[0] = if self.v6 { AF_INET6 } else { AF_INET };
        buffer[1] = self.number();
        buffer[2] = 1 << (INFO - 1);
        buffer[4..8].copy_from_slice(&(!NOBODYS).to_ne_bytes());
    }
}

/// A message of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A socket.
    Socket(Socket),
    /// There are no more.
    Done,
    /// The kernel refuses, with an errno.
    Refused(i32),
    /// Not understood.
    Strange,
}

/// The messages of a datagram, in order. A length that does not advance or points past the end ends the walk.
pub fn answers(datagram: &[u8], protocol: Protocol) -> impl Iterator<Item = Answer> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = word(rest, 0).map(|length| length as usize);
        let Some(length) = length.filter(|length| (NETLINK_HEADER..=rest.len()).contains(length)) else {
            rest = &[];
            return Some(Answer::Strange);
        };
        let (message, tail) = rest.split_at(length);
        rest = tail.get(length.next_multiple_of(4) - length..).unwrap_or_default();
        let payload = message.get(NETLINK_HEADER..).unwrap_or_default();
        Some(match half(message, 4) {
            Some(NLMSG_DONE) => Answer::Done,
            Some(NLMSG_ERROR) => {
                Answer::Refused(word(payload, 0).map_or(0, |error| error.cast_signed().wrapping_neg()))
            }
            Some(BY_FAMILY) => socket(payload, protocol).map_or(Answer::Strange, Answer::Socket),
            _ => Answer::Strange,
        })
    })
}

fn bytes<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn half(from: &[u8], at: usize) -> Option<u16> {
    bytes(from, at).map(u16::from_ne_bytes)
}

fn word(from: &[u8], at: usize) -> Option<u32> {
    bytes(from, at).map(u32::from_ne_bytes)
}

fn long(from: &[u8], at: usize) -> Option<u64> {
    bytes(from, at).map(u64::from_ne_bytes)
}

/// A `struct inet_diag_msg` and its attributes.
fn socket(payload: &[u8], protocol: Protocol) -> Option<Socket> {
    let family = *payload.first()?;
    let number = *payload.get(1)?;
    let port = |at| bytes(payload, at).map(u16::from_be_bytes);
    let ip = |at| match family {
        AF_INET => bytes::<4>(payload, at).map(|ip| IpAddr::V4(Ipv4Addr::from(ip))),
        AF_INET6 => bytes::<16>(payload, at).map(|ip| IpAddr::V6(Ipv6Addr::from(ip))),
        _ => None,
    };
    let mut socket = Socket {
        inode: word(payload, 68)?.into(),
        protocol,
        local: Some(address(ip(8)?, port(4)?)),
        remote: other_end(address(ip(24)?, port(6)?)),
        state: state(protocol, number),
        ..Socket::default()
    };
    if protocol == Protocol::Tcp
        && let Some(info) = attribute(payload.get(ANSWER..)?, INFO)
    {
        let first = long(info, tcp_info::BYTES_SENT).zip(long(info, tcp_info::BYTES_RETRANSMITTED));
        socket.sent = first
            .map(|(sent, again)| sent.saturating_sub(again))
            .or_else(|| long(info, tcp_info::BYTES_ACKED));
        socket.received = long(info, tcp_info::BYTES_RECEIVED);
    }
    Some(socket)
}

fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(half(rest, 0)?);
        let kind = half(rest, 2)?;
        if length < ATTRIBUTE_HEADER {
            return None;
        }
        let content = rest.get(ATTRIBUTE_HEADER..length)?;
        if kind == wanted {
            return Some(content);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = ((NETLINK_HEADER + payload.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(payload);
        bytes
    }

    fn tcp(info: usize) -> Vec<u8> {
        let mut payload = vec![0; ANSWER];
        payload[0] = AF_INET;
        payload[1] = 1;
        payload[4..8].copy_from_slice(&[0x1f, 0x90, 0x11, 0x5c]);
        payload[8..12].copy_from_slice(&[127, 0, 0, 1]);
        payload[24..28].copy_from_slice(&[203, 0, 113, 5]);
        payload[68..72].copy_from_slice(&4711u32.to_ne_bytes());
        payload.extend(8u16.to_ne_bytes());
        payload.extend(7u16.to_ne_bytes());
        payload.extend([0; 4]);
        payload.extend(((ATTRIBUTE_HEADER + info) as u16).to_ne_bytes());
        payload.extend(INFO.to_ne_bytes());
        let mut content = vec![0; 232];
        for (at, value) in [(120, 11u64), (128, 22), (200, 1010), (208, 10)] {
            content[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
        payload.extend(&content[..info]);
        message(BY_FAMILY, &payload)
    }

    #[test]
    fn a_connection_with_its_bytes() {
        let found: Vec<Answer> = answers(&tcp(232), Protocol::Tcp).collect();
        let [Answer::Socket(socket)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(socket.inode, 4711);
        assert_eq!(socket.local, Some("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(socket.remote, Some("203.0.113.5:4444".parse().unwrap()));
        assert_eq!((socket.state, socket.sent, socket.received), (Some("established"), Some(1000), Some(22)));
    }

    #[test]
    fn old_kernels_tell_less() {
        for (length, sent, received) in [(136, Some(11), Some(22)), (104, None, None)] {
            let found: Vec<Answer> = answers(&tcp(length), Protocol::Tcp).collect();
            let [Answer::Socket(socket)] = &found[..] else { panic!("{found:?}") };
            assert_eq!((socket.sent, socket.received), (sent, received));
        }
    }

    #[test]
    fn the_end_and_refusals() {
        let mut bytes = message(NLMSG_ERROR, &(-2i32).to_ne_bytes());
        bytes.extend(message(NLMSG_DONE, &[0; 4]));
        assert_eq!(answers(&bytes, Protocol::Udp).collect::<Vec<_>>(), [Answer::Refused(2), Answer::Done]);
        bytes[0..4].fill(0);
        assert_eq!(answers(&bytes, Protocol::Udp).collect::<Vec<_>>(), [Answer::Strange]);
    }

    #[test]
    fn requests_are_laid_out_as_the_kernel_reads_them() {
        let request = Request { protocol: Protocol::Udp, v6: true }.to_datagram();
        assert_eq!(request.len(), 72);
        assert_eq!(request[0..4], 72u32.to_ne_bytes());
        assert_eq!(request[4..8], [20u16.to_ne_bytes(), 0x301u16.to_ne_bytes()].concat());
        assert_eq!(request[16..19], [10, 17, 2]);
    }

    proptest! {
        #[test]
        fn any_bytes_end_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(answers(&bytes, Protocol::Tcp).count() <= bytes.len());
        }

        #[test]
        fn bent_answers_end_without_panic(length in 0usize..232, at in 0usize..330, value in any::<u8>(), cut in 0usize..330) {
            let mut bytes = tcp(length);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            bytes.truncate(cut.max(1));
            prop_assert!(answers(&bytes, Protocol::Tcp).count() <= bytes.len());
        }
    }
}
