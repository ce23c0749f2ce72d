//! How messages are told apart on their way.

use crate::config::{Framing, Transport};

/// The bytes that are written for a message, which is a line without its newline.
pub fn frame(message: &str, transport: Transport, framing: Framing) -> Vec<u8> {
    match (transport, framing) {
        (Transport::Udp, _) => message.as_bytes().to_vec(),
        (_, Framing::OctetCounting) => format!("{} {message}", message.len()).into_bytes(),
        (_, Framing::Newline) => format!("{message}\n").into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        let framed = |transport, framing| String::from_utf8(frame("h\u{e9}", transport, framing)).unwrap();
        assert_eq!(framed(Transport::Udp, Framing::OctetCounting), "h\u{e9}");
        assert_eq!(framed(Transport::Tcp, Framing::OctetCounting), "3 h\u{e9}");
        assert_eq!(framed(Transport::Tls, Framing::Newline), "h\u{e9}\n");
    }
}
