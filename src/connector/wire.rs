//! The connector's wire format, as netlink-packet-core types decoded from byte slices.
//!
//! A datagram is a netlink header (16 bytes), a connector header (`cn_msg`, 20 bytes) and a process event (up to 40
//! bytes; include/uapi/linux/connector.h and cn_proc.h). Kernels differ in the event's length, so each kind is checked
//! for the bytes *it* needs; only the members that belong to the kind are read, because old kernels leave garbage in
//! the rest. The 64-bit timestamp is not aligned in the datagram: everything is read from slices.

use netlink_packet_core::{
    DecodeError, Emitable, NLMSG_DONE, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable, Parseable,
};

/// `CN_IDX_PROC`: the connector's index of process events.
pub const INDEX: u32 = 1;
/// `CN_VAL_PROC`: the connector's value of process events.
pub const VALUE: u32 = 1;

const NETLINK_HEADER: usize = 16;
const CONNECTOR_HEADER: usize = 20;
/// `what`, `cpu` and `timestamp_ns` in front of each event's own members.
const EVENT_HEADER: usize = 16;

/// Offset of the event's `what` word in the datagram, for socket filters.
pub const WHAT_OFFSET: u32 = (NETLINK_HEADER + CONNECTOR_HEADER) as u32;
/// Offset of the event's `cpu` word in the datagram.
pub const CPU_OFFSET: u32 = WHAT_OFFSET + 4;
/// Offset of the event's own members in the datagram.
pub const DATA_OFFSET: u32 = WHAT_OFFSET + EVENT_HEADER as u32;

/// Kinds of event: values of the `what` word.
pub mod what {
    /// Answer to a request.
    pub const NONE: u32 = 0;
    /// A process or thread was made.
    pub const FORK: u32 = 1;
    /// A program was executed.
    pub const EXEC: u32 = 2;
    /// A task took another user id.
    pub const UID: u32 = 4;
    /// A process or thread ended.
    pub const EXIT: u32 = 0x8000_0000;
}

/// A process event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessEvent {
    /// The CPU that sent the event: for an exec, the one that runs the exec'ing task. `u32::MAX` in answers of old kernels.
    pub cpu: u32,
    /// CLOCK_MONOTONIC in nanoseconds.
    pub timestamp_ns: u64,
    /// What happened.
    pub kind: Kind,
}

/// What happened. Process ids are those of the initial pid namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The kernel's answer to a request.
    Answer {
        /// 0 or an errno.
        error: u32,
    },
    /// A new task; a thread of an existing process when `child_pid != child_tgid`.
    Fork {
        /// Process id of the parent.
        parent_tgid: u32,
        /// Thread id of the child.
        child_pid: u32,
        /// Process id of the child.
        child_tgid: u32,
    },
    /// A successful execve: the new image is in place.
    Exec {
        /// Process id.
        tgid: u32,
    },
    /// A task took another real or effective user id; a thread when `pid != tgid`. Ids are those of the initial user
    /// namespace.
    User {
        /// Thread id.
        pid: u32,
        /// Process id.
        tgid: u32,
        /// Real user id.
        real: u32,
        /// Effective user id.
        effective: u32,
    },
    /// A task ended; a thread when `pid != tgid`.
    Exit {
        /// Thread id.
        pid: u32,
        /// Process id.
        tgid: u32,
        /// Wait status: `code << 8 | signal`.
        code: u32,
    },
    /// A kind this program does not use (gid, session, ptrace, comm, core dump, or one of a later kernel).
    Other {
        /// The `what` word.
        what: u32,
    },
}

/// A connector message that carries a process event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// The answer's number is the request's plus one.
    pub ack: u32,
    /// The event.
    pub event: ProcessEvent,
}

/// Why a datagram is not a process event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireError {
    /// Shorter than its headers or its own length fields say.
    Short,
    /// Not a message of the process connector (index and value).
    Foreign,
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            WireError::Short => "process event shorter than its length fields say",
            WireError::Foreign => "not a message of the process connector",
        })
    }
}

impl std::error::Error for WireError {}

/// The native-endian word at `offset`.
fn word(bytes: &[u8], offset: usize) -> Result<u32, WireError> {
    match bytes.get(offset..offset + 4) {
        Some(&[a, b, c, d]) => Ok(u32::from_ne_bytes([a, b, c, d])),
        _ => Err(WireError::Short),
    }
}

impl Message {
    /// Decodes the payload of a netlink message, beginning with the connector header.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        if word(payload, 0)? != INDEX || word(payload, 4)? != VALUE {
            return Err(WireError::Foreign);
        }
        let ack = word(payload, 12)?;
        // `len` and `flags` are 16 bits each; the length is the first in memory on either byte order.
        let length = match payload.get(16..18) {
            Some(&[a, b]) => usize::from(u16::from_ne_bytes([a, b])),
            _ => return Err(WireError::Short),
        };
        let event = payload.get(CONNECTOR_HEADER..CONNECTOR_HEADER + length).ok_or(WireError::Short)?;
        Ok(Message { ack, event: ProcessEvent::decode(event)? })
    }
}

impl ProcessEvent {
    /// Decodes a `struct proc_event` of any kernel's length.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let what = word(bytes, 0)?;
        let cpu = word(bytes, 4)?;
        let timestamp_ns = match bytes.get(8..EVENT_HEADER).and_then(|slice| slice.try_into().ok()) {
            Some(timestamp) => u64::from_ne_bytes(timestamp),
            None => return Err(WireError::Short),
        };
        let member = |index: usize| word(bytes, EVENT_HEADER + 4 * index);
        let kind = match what {
            what::NONE => Kind::Answer { error: member(0)? },
            what::FORK => {
                Kind::Fork { parent_tgid: member(1)?, child_pid: member(2)?, child_tgid: member(3)? }
            }
            what::EXEC => Kind::Exec { tgid: member(1)? },
            what::EXIT => Kind::Exit { pid: member(0)?, tgid: member(1)?, code: member(2)? },
            what::UID => {
                Kind::User { pid: member(0)?, tgid: member(1)?, real: member(2)?, effective: member(3)? }
            }
            what => Kind::Other { what },
        };
        Ok(ProcessEvent { cpu, timestamp_ns, kind })
    }
}

impl Parseable<[u8]> for Message {
    fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        Message::decode(payload).map_err(|error| DecodeError::from(error.to_string()))
    }
}

/// The messages of one datagram, in order.
///
/// The kernel sends one message a datagram, but lengths are walked with bounds: a length that does not advance or
/// points past the end ends the walk with an error.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<Message, WireError>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some(length) = message_length(rest) else {
            rest = &[];
            return Some(Err(WireError::Short));
        };
        let (message, tail) = rest.split_at(length);
        // Messages are aligned to four bytes (NLMSG_ALIGN).
        rest = tail.get(length.next_multiple_of(4) - length..).unwrap_or_default();
        Some(Message::decode(&message[NETLINK_HEADER..]))
    })
}

/// The length that the netlink header gives, if it is one that this slice can hold.
fn message_length(bytes: &[u8]) -> Option<usize> {
    let header = bytes.get(..NETLINK_HEADER)?;
    let length = NetlinkBuffer::new(header).length() as usize;
    (NETLINK_HEADER..=bytes.len()).contains(&length).then_some(length)
}

/// What a subscriber asks of the connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `PROC_CN_MCAST_LISTEN`.
    Listen,
    /// `PROC_CN_MCAST_IGNORE`.
    Ignore,
    /// No operation of any kernel: it is answered with EINVAL, if the kernel answers at all.
    Nothing,
}

/// A request to the connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Start or stop.
    pub operation: Operation,
    /// The kinds wanted (a union of [`what`] bits): the 8-byte form, which kernels before 6.6 ignore without an answer.
    /// `None` is the 4-byte form, which every kernel takes and means all kinds.
    pub events: Option<u32>,
    /// The answer carries this number plus one.
    pub ack: u32,
}

impl Emitable for Request {
    fn buffer_len(&self) -> usize {
        CONNECTOR_HEADER + if self.events.is_some() { 8 } else { 4 }
    }

    fn emit(&self, buffer: &mut [u8]) {
        let length = (Emitable::buffer_len(self) - CONNECTOR_HEADER) as u16;
        let operation: u32 = match self.operation {
            Operation::Listen => 1,
            Operation::Ignore => 2,
            Operation::Nothing => 0,
        };
        buffer[0..4].copy_from_slice(&INDEX.to_ne_bytes());
        buffer[4..8].copy_from_slice(&VALUE.to_ne_bytes());
        buffer[8..12].fill(0);
        buffer[12..16].copy_from_slice(&self.ack.to_ne_bytes());
        buffer[16..18].copy_from_slice(&length.to_ne_bytes());
        buffer[18..20].fill(0);
        buffer[20..24].copy_from_slice(&operation.to_ne_bytes());
        if let Some(events) = self.events {
            buffer[24..28].copy_from_slice(&events.to_ne_bytes());
        }
    }
}

impl NetlinkSerializable for Request {
    /// The connector's messages are all of type NLMSG_DONE.
    fn message_type(&self) -> u16 {
        NLMSG_DONE
    }

    fn buffer_len(&self) -> usize {
        Emitable::buffer_len(self)
    }

    fn serialize(&self, buffer: &mut [u8]) {
        self.emit(buffer);
    }
}

impl Request {
    /// The whole datagram.
    pub fn to_datagram(self) -> Vec<u8> {
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(self));
        message.finalize();
        let mut datagram = vec![0; message.buffer_len()];
        message.serialize(&mut datagram);
        datagram
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A datagram as the kernel builds it, with `members` after the event's header.
    fn datagram(what: u32, cpu: u32, timestamp: u64, members: &[u32]) -> Vec<u8> {
        let mut event = Vec::new();
        event.extend(what.to_ne_bytes());
        event.extend(cpu.to_ne_bytes());
        event.extend(timestamp.to_ne_bytes());
        for member in members {
            event.extend(member.to_ne_bytes());
        }
        let mut bytes = Vec::new();
        bytes.extend(((NETLINK_HEADER + CONNECTOR_HEADER + event.len()) as u32).to_ne_bytes());
        bytes.extend(NLMSG_DONE.to_ne_bytes());
        bytes.extend([0; 10]);
        for value in [INDEX, VALUE, 7, 9] {
            bytes.extend(value.to_ne_bytes());
        }
        bytes.extend((event.len() as u16).to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(event);
        bytes
    }

    fn one(datagram: &[u8]) -> Result<Message, WireError> {
        let all: Vec<_> = messages(datagram).collect();
        assert_eq!(all.len(), 1);
        all[0]
    }

    #[test]
    fn every_kind_is_decoded() {
        let exec = one(&datagram(what::EXEC, 3, 42, &[10, 11, 0, 0, 0, 0])).unwrap();
        assert_eq!(exec.event, ProcessEvent { cpu: 3, timestamp_ns: 42, kind: Kind::Exec { tgid: 11 } });
        assert_eq!(exec.ack, 9);
        let fork = one(&datagram(what::FORK, 0, 1, &[1, 2, 3, 4])).unwrap();
        assert_eq!(fork.event.kind, Kind::Fork { parent_tgid: 2, child_pid: 3, child_tgid: 4 });
        let exit = one(&datagram(what::EXIT, 0, 1, &[1, 2, 256, 17])).unwrap();
        assert_eq!(exit.event.kind, Kind::Exit { pid: 1, tgid: 2, code: 256 });
        let user = one(&datagram(what::UID, 0, 1, &[1, 2, 33, 0])).unwrap();
        assert_eq!(user.event.kind, Kind::User { pid: 1, tgid: 2, real: 33, effective: 0 });
        let answer = one(&datagram(what::NONE, u32::MAX, 1, &[1])).unwrap();
        assert_eq!(answer.event.kind, Kind::Answer { error: 1 });
        let comm = one(&datagram(0x200, 0, 1, &[1, 2, 3, 4, 5, 6])).unwrap();
        assert_eq!(comm.event.kind, Kind::Other { what: 0x200 });
    }

    #[test]
    fn lengths_of_old_and_new_kernels() {
        // Before comm events (3.1) the event's own part was 16 bytes; since then 24.
        for members in [4, 6, 9] {
            let event = one(&datagram(what::EXEC, 0, 1, &vec![5; members])).unwrap().event;
            assert_eq!(event.kind, Kind::Exec { tgid: 5 });
        }
        assert_eq!(one(&datagram(what::EXEC, 0, 1, &[5])), Err(WireError::Short));
        assert_eq!(one(&datagram(what::EXIT, 0, 1, &[5, 6])), Err(WireError::Short));
    }

    #[test]
    fn foreign_and_cut_messages() {
        let mut foreign = datagram(what::EXEC, 0, 1, &[5, 5]);
        foreign[NETLINK_HEADER] = 3;
        assert_eq!(one(&foreign), Err(WireError::Foreign));
        let whole = datagram(what::EXEC, 0, 1, &[5, 5]);
        for length in 1..whole.len() {
            assert_eq!(one(&whole[..length]), Err(WireError::Short), "{length}");
        }
        // A length of nothing must not loop for ever.
        let mut still = whole.clone();
        still[0..4].fill(0);
        assert_eq!(one(&still), Err(WireError::Short));
        // The connector's own length may not reach past the netlink message.
        let mut long = whole;
        long[NETLINK_HEADER + 16..NETLINK_HEADER + 18].copy_from_slice(&200u16.to_ne_bytes());
        assert_eq!(one(&long), Err(WireError::Short));
    }

    #[test]
    fn several_messages_in_a_datagram() {
        let mut bytes = datagram(what::EXEC, 0, 1, &[5, 5]);
        bytes.extend(datagram(what::EXEC, 0, 2, &[6, 6]));
        let stamps: Vec<_> = messages(&bytes).map(|message| message.unwrap().event.timestamp_ns).collect();
        assert_eq!(stamps, [1, 2]);
    }

    #[test]
    fn requests_are_laid_out_as_the_kernel_reads_them() {
        let short = Request { operation: Operation::Listen, events: None, ack: 5 }.to_datagram();
        assert_eq!(short.len(), 40);
        assert_eq!(short[0..4], 40u32.to_ne_bytes());
        assert_eq!(short[4..6], 3u16.to_ne_bytes());
        assert_eq!(short[28..32], 5u32.to_ne_bytes());
        assert_eq!(short[32..34], 4u16.to_ne_bytes());
        assert_eq!(short[36..40], 1u32.to_ne_bytes());
        let long = Request { operation: Operation::Ignore, events: Some(what::EXEC), ack: 0 }.to_datagram();
        assert_eq!(long.len(), 44);
        assert_eq!(long[32..34], 8u16.to_ne_bytes());
        assert_eq!(long[36..44], [2u32.to_ne_bytes(), 2u32.to_ne_bytes()].concat());
    }

    proptest! {
        #[test]
        fn any_bytes_end_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(messages(&bytes).count() <= bytes.len());
        }

        #[test]
        fn bent_events_end_without_panic(
            what in any::<u32>(), members in proptest::collection::vec(any::<u32>(), 0..12),
            at in 0usize..120, value in any::<u8>(),
        ) {
            let mut bytes = datagram(what, 0, 1, &members);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            prop_assert!(messages(&bytes).count() <= bytes.len());
        }

        #[test]
        fn an_exec_survives_any_trailer(tgid in any::<u32>(), cpu in any::<u32>(), stamp in any::<u64>(),
                                        tail in proptest::collection::vec(any::<u32>(), 0..8)) {
            let mut members = vec![tgid, tgid];
            members.extend(tail);
            let event = one(&datagram(what::EXEC, cpu, stamp, &members)).unwrap().event;
            prop_assert_eq!(event, ProcessEvent { cpu, timestamp_ns: stamp, kind: Kind::Exec { tgid } });
        }
    }
}
