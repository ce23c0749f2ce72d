//! The values in an event, and how each is written.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::alert::escape::{for_json, of_json};
use crate::calendar::{self, LocalTime};
use crate::process::parse::{self, cgroup_paths};
use crate::rules::subject::{CAPABILITIES, capability_names};

/// Bytes without a NUL, written as text.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(Vec<u8>);

impl Bytes {
    /// The bytes up to the first NUL.
    pub fn new(bytes: &[u8]) -> Self {
        Bytes(bytes.split(|&byte| byte == 0).next().unwrap_or_default().to_vec())
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for_json(&self.0).fmt(f)
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Bytes::new(text.as_bytes())
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&for_json(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = of_json(&text(deserializer)?);
        if bytes.contains(&0) {
            return Err(D::Error::custom("a text with a NUL, which no argument, path or name can hold"));
        }
        Ok(Bytes(bytes))
    }
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, str>, D::Error> {
    struct Text;

    impl<'de> Visitor<'de> for Text {
        type Value = Cow<'de, str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(text))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Cow::Owned(text.to_owned()))
        }
    }

    deserializer.deserialize_str(Text)
}

/// A controlling terminal by its device number, written as its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal(u32);

impl Terminal {
    /// The terminal of a device number; `None` for 0, which is none.
    pub fn new(device: u32) -> Option<Self> {
        (device != 0).then_some(Terminal(device))
    }

    /// The terminal of a name such as `pts/0`.
    pub fn of_name(name: &str) -> Option<Self> {
        parse::tty_device(name).and_then(Terminal::new)
    }

    /// The device number, as /proc/PID/stat has it.
    pub fn device(self) -> u32 {
        self.0
    }
}

impl Serialize for Terminal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&parse::tty_name(self.0).unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for Terminal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = text(deserializer)?;
        Terminal::of_name(&name).ok_or_else(|| {
            D::Error::custom(format!(
                "`{name}` is no terminal such as pts/0, tty1, ttyS0 or 204:64; if there is none, list \"tty\" in `absent`"
            ))
        })
    }
}

/// A moment with the offset of a time zone, written as RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Nanoseconds since 1970.
    pub ns: u64,
    /// Seconds that the zone is ahead of UTC.
    pub offset: i32,
}

impl Moment {
    /// Reads RFC 3339.
    pub fn parse(text: &str) -> Option<Self> {
        let (ns, offset) = calendar::parse_rfc3339(text)?;
        Some(Moment { ns, offset })
    }

    /// A moment in this host's time zone.
    pub fn on_this_host(ns: u64) -> Self {
        Moment { ns, offset: crate::sys::time::offset(ns / 1_000_000_000) }
    }

    /// Hour and weekday in its zone.
    pub fn local(self) -> LocalTime {
        let seconds = (self.ns / 1_000_000_000).saturating_add_signed(i64::from(self.offset));
        // 1970 began on a Thursday.
        LocalTime { hour: (seconds / 3600 % 24) as u8, weekday: ((seconds / 86_400 + 4) % 7) as u8 }
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&calendar::rfc3339_in_zone(self.ns, self.offset))
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = text(deserializer)?;
        Moment::parse(&written).ok_or_else(|| {
            D::Error::custom(format!("`{written}` is no moment such as 2026-11-24T03:12:00+01:00"))
        })
    }
}

/// The content of /proc/PID/cgroup: written as a path if it is the one path of cgroup v2, otherwise as its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup(Vec<u8>);

/// What a line of cgroup v2 begins with.
const V2: &[u8] = b"0::";

impl Cgroup {
    /// From the content of the file; lines that are none of it, as the last where it was cut, are left out.
    pub fn new(content: &[u8]) -> Self {
        let lines = content.split(|&byte| byte == b'\n').filter(|line| is_cgroup_line(line));
        Cgroup(lines.collect::<Vec<_>>().join(&b'\n'))
    }

    /// The lines.
    pub fn content(&self) -> &[u8] {
        &self.0
    }

    fn of_text(text: &str) -> Result<Vec<u8>, String> {
        let bytes = of_json(text);
        if bytes.iter().any(|&byte| byte == 0 || byte == b'\n') {
            return Err("a cgroup holds neither NUL nor newline".to_owned());
        }
        if bytes.starts_with(b"/") {
            return Ok([V2, &bytes].concat());
        }
        match is_cgroup_line(&bytes) {
            true => Ok(bytes),
            false => Err(format!("`{text}` is no path of a cgroup, nor a line of /proc/PID/cgroup")),
        }
    }

    /// From a path, or a line of the file.
    pub fn parse(text: &str) -> Result<Self, String> {
        Cgroup::of_text(text).map(Cgroup)
    }
}

fn is_cgroup_line(line: &[u8]) -> bool {
    line.first().is_some_and(u8::is_ascii_digit) && cgroup_paths(line).any(|path| path.starts_with(b"/"))
}

impl Serialize for Cgroup {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.strip_prefix(V2).filter(|path| !path.contains(&b'\n')) {
            Some(path) => serializer.serialize_str(&for_json(path)),
            None => serializer.collect_seq(
                self.0.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(for_json),
            ),
        }
    }
}

impl<'de> Deserialize<'de> for Cgroup {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PathOrLines;

        impl<'de> Visitor<'de> for PathOrLines {
            type Value = Cgroup;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the path of a cgroup, or a list of lines of /proc/PID/cgroup")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Cgroup, E> {
                Cgroup::parse(text).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Cgroup, A::Error> {
                let mut lines: Vec<Vec<u8>> = Vec::new();
                while let Some(line) = list.next_element::<String>()? {
                    lines.push(Cgroup::of_text(&line).map_err(A::Error::custom)?);
                }
                Ok(Cgroup(lines.join(&b'\n')))
            }
        }

        deserializer.deserialize_any(PathOrLines)
    }
}

/// A set of capabilities, written as names such as `net_raw`; a bit that has no name yet as its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapabilitySet(pub u64);

impl Serialize for CapabilitySet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let named = capability_names(self.0).map(str::to_owned);
        let bits = CAPABILITIES.len()..64;
        let unnamed = bits.filter(|bit| self.0 >> bit & 1 == 1).map(|bit| bit.to_string());
        serializer.collect_seq(named.chain(unnamed))
    }
}

impl<'de> Deserialize<'de> for CapabilitySet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        let mut set = 0;
        for name in names {
            let bit = CAPABILITIES.iter().position(|known| *known == name);
            let bit = bit.or_else(|| name.parse().ok().filter(|&bit| bit < 64));
            set |= 1
                << bit
                    .ok_or_else(|| D::Error::custom(format!("`{name}` is no capability such as net_raw")))?;
        }
        Ok(CapabilitySet(set))
    }
}

/// A number in octal digits that must be there.
pub(super) mod octal_digits {
    use super::{Deserializer, Error, Serializer, octal};

    pub(in crate::event) fn serialize<S: Serializer>(number: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        octal::serialize(&Some(*number), serializer)
    }

    pub(in crate::event) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        octal::deserialize(deserializer)?
            .ok_or_else(|| D::Error::custom("a number in octal digits is missing"))
    }
}

/// A number in octal digits.
pub(super) mod octal {
    use super::{Deserializer, Error, Serializer, text};

    pub(in crate::event) fn serialize<S: Serializer>(
        number: &Option<u32>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:04o}", number.unwrap_or_default()))
    }

    pub(in crate::event) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<u32>, D::Error> {
        let digits = text(deserializer)?;
        match u32::from_str_radix(&digits, 8) {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(D::Error::custom(format!("`{digits}` is no octal number such as 0022"))),
        }
    }
}
