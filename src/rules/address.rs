//! Internet addresses in arguments, and networks to compare them with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network such as 10.0.0.0/8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// As 128 bits; IPv4 stands in ::ffff:0:0/96.
    bits: u128,
    /// How many of the 128 count.
    length: u32,
}

impl Network {
    /// Parses `10.0.0.0/8`, `fd00::/8` or a single address.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "not a network such as 10.0.0.0/8 or fd00::/8";
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u32>().map_err(|_| WRONG)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| WRONG)?;
        let own = if address.is_ipv4() { 32 } else { 128 };
        let length = length.unwrap_or(own);
        if length > own {
            return Err("the length of the network's prefix is beyond that of an address");
        }
        let network = Network { bits: bits(address), length: length + (128 - own) };
        if network.bits & !network.mask() != 0 {
            return Err("the address has bits beyond the length of the network's prefix");
        }
        Ok(network)
    }

    /// True if the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        bits(address) & self.mask() == self.bits
    }

    fn mask(&self) -> u128 {
        u128::MAX.checked_shl(128 - self.length).unwrap_or(0)
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The addresses in an argument: alone, or in what surrounds it: a URL, `user@host:path`, `tcp:host:port`.
///
/// IPv4 is read as inet_aton(3) does, which most utilities call: also in hexadecimal and octal, and with fewer than four
/// parts where it is hexadecimal (a bare decimal number is more often a port).
pub fn addresses(argument: &[u8]) -> impl Iterator<Item = IpAddr> + '_ {
    let in_address = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b':');
    argument.split(move |byte| !in_address(byte)).filter(|word| word.len() >= 2).flat_map(|word| {
        let six =
            std::str::from_utf8(word).ok().and_then(|text| text.parse::<Ipv6Addr>().ok()).map(IpAddr::V6);
        let four = word.split(|&byte| byte == b':').filter_map(inet_aton).map(IpAddr::V4);
        // A word that is a whole IPv6 address has no IPv4 one in it but in its last part, which is the same.
        six.into_iter().chain(four.filter(move |_| six.is_none()))
    })
}

fn inet_aton(word: &[u8]) -> Option<Ipv4Addr> {
    let text = std::str::from_utf8(word).ok()?;
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() > 4 || parts.len() < 4 && !text.starts_with("0x") {
        return None;
    }
    let mut address = 0u32;
    for (index, part) in parts.iter().enumerate() {
        let value = number(part)?;
        // The last part fills what the others leave.
        let width = if index + 1 == parts.len() { 32 - 8 * index as u32 } else { 8 };
        if u64::from(value) >= 1u64 << width {
            return None;
        }
        address |= value << (32 - 8 * index as u32 - width);
    }
    Some(Ipv4Addr::from_bits(address))
}

fn number(part: &str) -> Option<u32> {
    let (digits, radix) = match part.strip_prefix("0x").or_else(|| part.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None if part.len() > 1 && part.starts_with('0') => (&part[1..], 8),
        None => (part, 10),
    };
    if digits.starts_with('+') { None } else { u32::from_str_radix(digits, radix).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(argument: &str) -> Vec<String> {
        addresses(argument.as_bytes()).map(|address| address.to_string()).collect()
    }

    #[test]
    fn addresses_in_arguments() {
        assert_eq!(found("10.0.0.1"), ["10.0.0.1"]);
        assert_eq!(found("http://10.1.2.3:8080/x"), ["10.1.2.3"]);
        assert_eq!(found("root@192.168.0.7:/etc/passwd"), ["192.168.0.7"]);
        assert_eq!(found("TCP:203.0.113.5:4444,fork"), ["203.0.113.5"]);
        assert_eq!(found("http://[fe80::1]:80/"), ["fe80::1"]);
        assert_eq!(found("::1"), ["::1"]);
        assert_eq!(found("0x7f000001"), ["127.0.0.1"]);
        assert_eq!(found("http://0x7f.1/"), ["127.0.0.1"]);
        assert_eq!(found("0177.0.0.1"), ["127.0.0.1"]);
        assert_eq!(found("10.0.0.1-10.0.0.9"), ["10.0.0.1", "10.0.0.9"]);
        for none in ["4444", "1.2.3", "1.2.3.4.5", "256.1.1.1", "example.org", "-lvp", "a.b.c.d", "8.8.8.+8"]
        {
            assert_eq!(found(none), [""; 0], "{none}");
        }
    }

    #[test]
    fn networks() {
        let contains = |network: &str, address: &str| {
            Network::parse(network).unwrap().contains(address.parse().unwrap())
        };
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("0.0.0.0/0", "1.2.3.4") && !contains("0.0.0.0/0", "fe80::1"));
        assert!(
            contains("::/0", "fe80::1")
                && contains("fd00::/8", "fd12::1")
                && contains("127.0.0.1", "127.0.0.1")
        );
        assert!(contains("127.0.0.0/8", "::ffff:127.0.0.1"));
        for wrong in ["", "10.0.0.0/33", "10.0.0.1/8", "10.0.0/8", "x/8", "10.0.0.0/x", "::1/129"] {
            assert!(Network::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_argument_ends(argument in proptest::collection::vec(any::<u8>(), 0..60)) {
            addresses(&argument).count();
        }

        #[test]
        fn an_address_is_found_as_written(address in any::<[u8; 4]>()) {
            let address = Ipv4Addr::from(address).to_string();
            prop_assert_eq!(found(&format!("http://{address}:80/")), [address]);
        }
    }
}
