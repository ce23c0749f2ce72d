//! Syslog over the network: what happens to messages when the receiver is slow, silent, hostile, stopped, killed or another
//! one, and what rsyslog and syslog-ng make of them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up has failed")]

mod daemons;
mod farewell;
mod receiver;
#[path = "../support/mod.rs"]
mod support;
mod verified;

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use execwatch::alert::{Host, Notice, Record, RecordId};
use execwatch::config::{Remote, Server};
use execwatch::output::Destination;
use execwatch::output::entry::Entry;
use execwatch::output::remote::RemoteOutput;
use execwatch::rules::model::Severity;
use nix::sys::socket::{setsockopt, sockopt};
use receiver::{Receiver, number};
use support::servers::free_port;
use support::{DEADLINE, wait_until, within};

/// An output to these servers.
fn remote(servers: &[&str]) -> Remote {
    let servers = servers.iter().map(|url| Server::parse(url).unwrap()).collect();
    Remote::new("test".to_owned(), servers)
}

fn output(settings: Remote) -> RemoteOutput {
    RemoteOutput::new(settings, "web1")
}

/// A record with a number and more text.
fn entry(output: &RemoteOutput, message: &str) -> Entry {
    let message = message.to_owned();
    let notice =
        Notice { kind: "test", severity: Severity::Low, time_ns: 1_767_225_600_000_000_000, message };
    Entry::new(&Record::Notice(notice), RecordId { run: 1, number: 1 }, &[output.form()], &Host::default())
}

fn numbered(number: u32) -> String {
    format!("number-{number}. {}", "x".repeat(100))
}

/// Writes until it is taken, as the output's thread does.
fn write(output: &mut RemoteOutput, message: &str) {
    let entry = entry(output, message);
    let mut last = None;
    let taken = within(DEADLINE, || output.write(&entry).map_err(|error| last = Some(error)).ok());
    assert!(taken.is_some(), "{last:?}");
}

fn write_all(output: &mut RemoteOutput, numbers: RangeInclusive<u32>) {
    numbers.for_each(|number| write(output, &numbered(number)));
}

/// Waits until everything is acknowledged, as the output's thread does when nothing is queued.
fn flush(output: &mut RemoteOutput) {
    let mut last = None;
    let done = within(DEADLINE, || output.flush().map_err(|error| last = Some(error)).ok());
    assert!(done.is_some(), "{last:?}");
}

fn all(numbers: RangeInclusive<u32>) -> Vec<u32> {
    numbers.collect()
}

#[test]
fn each_message_arrives_once_in_order() {
    let receiver = Receiver::start(0);
    let mut output = output(remote(&[&receiver.url()]));
    write_all(&mut output, 1..=1000);
    flush(&mut output);
    assert_eq!(output.held(), 0);
    wait_until("the messages", || (receiver.arrived.all().len() == 1000).then_some(()));
    assert_eq!(receiver.arrived.numbers(), [all(1..=1000)]);
}

/// A process that is killed takes with it what its kernel had acknowledged and it had not read.
#[test]
fn a_receiver_that_dies_without_having_read() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut output = output(remote(&[&format!("tcp://127.0.0.1:{port}")]));
    write_all(&mut output, 1..=50);
    flush(&mut output);
    assert_eq!(output.held(), 0, "the kernel has them all");
    assert!(output.next_look().is_some(), "they may still be lost");
    // The kernel resets the connection, as it does for a killed process.
    drop(listener.accept().unwrap());
    drop(listener);
    let receiver = Receiver::start(port);
    // Nothing new is written: the next look is enough.
    flush(&mut output);
    wait_until("the messages", || (receiver.arrived.all().len() == 50).then_some(()));
    assert_eq!(receiver.arrived.numbers(), [all(1..=50)]);
}

/// A receiver that closes a connection in order has read everything: nothing comes twice.
#[test]
fn a_receiver_that_closes_has_read() {
    let receiver = Receiver::start(0);
    let port = receiver.port();
    let mut output = output(remote(&[&receiver.url()]));
    write_all(&mut output, 1..=50);
    flush(&mut output);
    wait_until("the messages", || (receiver.arrived.all().len() == 50).then_some(()));
    drop(receiver);
    let receiver = Receiver::start(port);
    write_all(&mut output, 51..=60);
    flush(&mut output);
    wait_until("the messages", || (receiver.arrived.all().len() >= 10).then_some(()));
    assert_eq!(receiver.arrived.numbers(), [all(51..=60)]);
}

/// Nothing is taken for too long: the connection is given up, maybe in the middle of a message, and all of what it had not
/// acknowledged comes again on the next one.
#[test]
fn a_receiver_that_does_not_read_and_reads_on() {
    const MESSAGES: u32 = 20_000;
    let reads = Arc::new(AtomicBool::new(false));
    let first = AtomicBool::new(true);
    let receiver = Receiver::start_with(0, {
        let reads = Arc::clone(&reads);
        move |_| {
            if first.swap(false, SeqCst) {
                wait_until("reading on", || reads.load(SeqCst).then_some(()));
            }
        }
    });
    let settings = Remote { write_timeout: Duration::from_millis(200), ..remote(&[&receiver.url()]) };
    let mut output = output(settings);
    let mut failures = 0;
    for number in 1..=MESSAGES {
        let entry = entry(&output, &numbered(number));
        let taken = within(DEADLINE, || output.write(&entry).map_err(|_| failures += 1).ok());
        assert!(taken.is_some());
    }
    assert!(failures > 0, "the first connection took everything");
    flush(&mut output);
    reads.store(true, SeqCst);
    wait_until("the messages", || (receiver.arrived.all().len() == MESSAGES as usize).then_some(()));
    assert_eq!(receiver.arrived.all(), all(1..=MESSAGES));
    let connections = receiver.arrived.numbers();
    assert!(connections.len() >= 2);
    assert!(connections.iter().all(|numbers| numbers.is_sorted()), "each connection has them in order");
}

/// Slow is not broken: a receiver that takes a little at a time keeps its connection, however long that takes in all.
#[test]
fn a_slow_receiver() {
    const MESSAGES: u32 = 300;
    let receiver = Receiver::start_with(0, |mut stream| {
        setsockopt(stream, sockopt::RcvBuf, &2048).unwrap();
        stream.write_all(b"220 talk that nobody asked for\r\n").unwrap();
    });
    let settings = Remote { write_timeout: Duration::from_secs(1), ..remote(&[&receiver.url()]) };
    let mut output = output(settings);
    write_all(&mut output, 1..=MESSAGES);
    flush(&mut output);
    wait_until("the messages", || (receiver.arrived.all().len() == MESSAGES as usize).then_some(()));
    assert_eq!(receiver.arrived.numbers(), [all(1..=MESSAGES)]);
}

#[test]
fn the_next_server_is_used_and_the_first_again() {
    let second = Receiver::start(0);
    let port = free_port();
    let first_url = format!("tcp://127.0.0.1:{port}");
    let settings =
        Remote { return_after: Duration::from_millis(100), ..remote(&[&first_url, &second.url()]) };
    let mut output = output(settings);
    write_all(&mut output, 1..=10);
    flush(&mut output);
    wait_until("the messages at the second", || (second.arrived.all().len() == 10).then_some(()));
    let first = Receiver::start(port);
    let mut last = 10;
    wait_until("the return to the first", || {
        last += 1;
        write(&mut output, &numbered(last));
        flush(&mut output);
        (!first.arrived.all().is_empty()).then_some(())
    });
    let at_first = first.arrived.clone();
    drop(first);
    write_all(&mut output, last + 1..=last + 10);
    flush(&mut output);
    wait_until("the second again", || second.arrived.all().contains(&(last + 10)).then_some(()));
    let mut arrived = second.arrived.all();
    assert_eq!(arrived[..10], all(1..=10));
    arrived.extend(at_first.all());
    arrived.sort_unstable();
    arrived.dedup();
    assert_eq!(arrived, all(1..=last + 10));
}

#[test]
fn datagrams_that_are_refused_go_to_the_next_server() {
    let second = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    second.set_read_timeout(Some(DEADLINE)).unwrap();
    let urls =
        [format!("udp://127.0.0.1:{}", free_port()), format!("udp://{}", second.local_addr().unwrap())];
    let mut output = output(remote(&[&urls[0], &urls[1]]));
    write_all(&mut output, 1..=3);
    flush(&mut output);
    assert_eq!(output.held(), 0);
    let mut buffer = [0; 4096];
    let mut received = || {
        let length = second.recv(&mut buffer).unwrap();
        number(std::str::from_utf8(&buffer[..length]).unwrap())
    };
    assert_eq!([received(), received(), received()], [1, 2, 3]);
}

#[test]
fn newlines_between_messages() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let framing = execwatch::config::Framing::Newline;
    let mut output = output(Remote { framing, ..remote(&[&url]) });
    for number in 1..=2 {
        write(&mut output, &format!("number-{number}. a\nb"));
    }
    flush(&mut output);
    let (mut stream, _) = listener.accept().unwrap();
    drop(output);
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let numbers: Vec<u32> = text.lines().map(number).collect();
    assert_eq!(numbers, [1, 2], "{text}");
    assert!(text.ends_with('\n'));
}

/// A server that says anything but nothing: each error is a sentence, none is waited for longer than configured, and the
/// next server is used.
#[test]
fn hostile_servers() {
    let talker = Receiver::start_with(0, |mut stream| {
        // It ends when the other side does.
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let good = Receiver::start(0);
    for (servers, said) in [
        (vec![talker.url()], "should only listen"),
        (vec![talker.url().replace("tcp", "tls")], "TLS failed"),
        (vec![format!("tls://{}", silent.local_addr().unwrap())], "did not answer in time"),
        (vec![format!("tcp://127.0.0.1:{}", free_port())], "refused"),
        (vec!["tcp://name.invalid:1".to_owned()], "name.invalid"),
    ] {
        let urls: Vec<&str> = servers.iter().map(String::as_str).collect();
        let time = Duration::from_millis(200);
        let mut alone = output(Remote { connect_timeout: time, write_timeout: time, ..remote(&urls) });
        let record = entry(&alone, &numbered(1));
        let error = wait_until(said, || alone.write(&record).and_then(|()| alone.flush()).err());
        assert!(error.to_string().contains(said) && error.to_string().contains("://"), "{error}");
        let both = [urls[0], &good.url()];
        let mut output = output(Remote { connect_timeout: time, write_timeout: time, ..remote(&both) });
        let before = good.arrived.numbers().len();
        write(&mut output, &numbered(7));
        wait_until("the message at the good server", || {
            // The talker is only found out once it has talked.
            flush(&mut output);
            write(&mut output, &numbered(7));
            good.arrived.numbers().get(before).is_some_and(|numbers| !numbers.is_empty()).then_some(())
        });
    }
}
