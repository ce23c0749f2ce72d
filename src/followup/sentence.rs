//! The record as a sentence, such as «nc ended after 12.0s: connected to 203.0.113.5:4444 for 11.9s, sent 3.0 MB, received
//! 0 B; last looked at after 11.5s; exit 0».

use super::known::Seen;
use super::record::{FollowUp, Occasion};
use super::sockets::{ESTABLISHED, LISTEN, Protocol};
use crate::order;

/// Peers, places of listening, files and children that are named.
const NAMED: usize = 3;
/// Bytes of a name.
const NAME: usize = 64;

/// The sentence.
pub fn of(record: &FollowUp) -> String {
    let known = &record.known;
    let mut parts = Vec::new();
    let listening: Vec<&Seen> =
        known.sockets.iter().filter(|seen| seen.socket.state == Some(LISTEN)).collect();
    let ports: Vec<u16> =
        listening.iter().filter_map(|seen| seen.socket.local.map(|local| local.port())).collect();
    named(&mut parts, &listening, |seen| {
        seen.socket.local.map(|local| format!("listened on {} {local}", seen.socket.protocol.as_str()))
    });
    let mut peers: Vec<&Seen> = known.sockets.iter().filter(|seen| seen.socket.remote.is_some()).collect();
    // Those with which most was exchanged first.
    order::by_key(&mut peers, |seen| std::cmp::Reverse((seen.socket.sent, seen.socket.received)));
    named(&mut parts, &peers, |seen| Some(peer(record, seen, &ports)));
    let others = known.sockets.len() - listening.len() - peers.len() + known.more_sockets;
    if others > 0 {
        parts.push(format!("{others} other {}", plural(others, "socket")));
    }
    let children = known.count_children();
    if children > 0 {
        let names: Vec<String> =
            known.children.iter().filter_map(|child| child.image.name()).take(NAMED).map(short).collect();
        let names = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
        parts.push(format!("made {children} {}{names}", if children == 1 { "process" } else { "processes" }));
    }
    let files = known.files.len() + known.more_files;
    if files > 0 {
        let names: Vec<String> = known.files.iter().take(NAMED).map(|file| short(file)).collect();
        let more = files - names.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        parts.push(format!("had open for writing {}{more}", names.join(", ")));
    }
    if parts.is_empty() {
        parts.push(match known.looked_ns {
            Some(_) => "no sockets, no children and no files open for writing were seen".to_owned(),
            None => "it could not be looked at before".to_owned(),
        });
    }
    // Bytes are those of the last look, and more may have gone since.
    if matches!(record.occasion, Occasion::Ended(_) | Occasion::LetGo)
        && let Some(looked_ns) = known.looked_ns.filter(|_| known.sockets.iter().any(|seen| seen.open))
    {
        parts.push(format!("last looked at after {}", seconds(looked_ns)));
    }
    parts.extend(match record.occasion {
        Occasion::Running => None,
        Occasion::EndUnseen => Some("its exit was not seen".to_owned()),
        Occasion::LetGo => Some("no longer followed, to make room for others".to_owned()),
        Occasion::Ended(_) => match (record.occasion.signal(), record.occasion.exit_code()) {
            (Some(signal), _) => Some(format!("killed by {signal}")),
            (None, code) => Some(format!("exit {}", code.unwrap_or_default())),
        },
    });
    let name = record.alerted.image.name().map_or_else(|| "the program".to_owned(), short);
    let age = seconds(record.age_ns);
    let when = match record.occasion {
        _ if record.alerted.already_running => format!("{age} after it was found running"),
        Occasion::Ended(_) => format!("ended after {age}"),
        Occasion::EndUnseen => format!("ended after {age} or more"),
        Occasion::Running | Occasion::LetGo => format!("after {age}"),
    };
    format!("{name} {when}: {}", parts.join("; "))
}

/// Adds the first ones, and how many there are besides.
fn named(parts: &mut Vec<String>, all: &[&Seen], text: impl Fn(&Seen) -> Option<String>) {
    parts.extend(all.iter().take(NAMED).filter_map(|seen| text(seen)));
    if all.len() > NAMED {
        parts.push(format!("{} more of these", all.len() - NAMED));
    }
}

/// A connection. Whoever came to a port that the process listens on was not called by it.
fn peer(record: &FollowUp, seen: &Seen, listening: &[u16]) -> String {
    let socket = &seen.socket;
    let remote = socket.remote.map_or_else(String::new, |remote| remote.to_string());
    let local_port = socket.local.map(|local| local.port());
    let kind = if socket.protocol == Protocol::Tcp { "" } else { socket.protocol.as_str() };
    let space = if kind.is_empty() { "" } else { " " };
    let verb = if local_port.is_some_and(|port| listening.contains(&port)) {
        "connected from"
    } else if socket.state == Some("syn-sent") {
        "tried to connect to"
    } else {
        "connected to"
    };
    // One that was there at the last look before the end may have lasted until then.
    let until =
        if seen.open && record.occasion != Occasion::EndUnseen { record.age_ns } else { seen.last_ns };
    let mut text =
        format!("{verb} {kind}{space}{remote} for {}", seconds(until.saturating_sub(seen.first_ns)));
    if let (Some(sent), Some(received)) = (socket.sent, socket.received) {
        text += &format!(", sent {}, received {}", bytes(sent), bytes(received));
    }
    if socket.protocol == Protocol::Tcp
        && record.occasion == Occasion::Running
        && seen.open
        && let Some(state) = socket.state.filter(|&state| state != ESTABLISHED)
    {
        text += &format!(" ({state})");
    }
    text
}

/// A time in seconds: three decimals below a second, one below ten minutes, then none.
pub fn seconds(ns: u64) -> String {
    let ms = ns / 1_000_000;
    match ms {
        0..1000 => format!("0.{ms:03}s"),
        1000..600_000 => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
        _ => format!("{}s", ms / 1000),
    }
}

/// Bytes in decimal units.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let (mut tenths, mut unit) = (count / 100, 0);
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

fn short(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(NAME)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!([seconds(0), seconds(12_345_678), seconds(12_345_678_901)], ["0.000s", "0.012s", "12.3s"]);
        assert_eq!(seconds(3_600_000_000_000), "3600s");
        assert_eq!([bytes(0), bytes(999), bytes(1000)], ["0 B", "999 B", "1.0 kB"]);
        assert_eq!([bytes(3_000_000), bytes(u64::MAX)], ["3.0 MB", "18.4 EB"]);
    }
}
