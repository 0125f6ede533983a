//! Client addresses as they may be kept: full, truncated or not at all.
//!
//! Truncation is pseudonymisation, not anonymisation: together with other data a person may still
//! be found.

use std::net::IpAddr;

/// How much of a client's address may reach a disk (`privacy.address`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// All of it.
    Full,
    /// The network: /24 of IPv4, /48 of IPv6.
    Truncated,
    /// Nothing.
    None,
}

/// The bytes of an address that may be kept; 0, 4 or 16 of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    bytes: [u8; 16],
    length: usize,
}

impl Kept {
    /// The address' bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// What may be kept of `address`; IPv4 addresses mapped into IPv6 count as IPv4.
#[must_use]
pub fn keep(address: IpAddr, rule: Address) -> Kept {
    let mut bytes = [0; 16];
    let length = match (rule, address.to_canonical()) {
        (Address::None, _) => 0,
        (rule, IpAddr::V4(v4)) => {
            bytes[..4].copy_from_slice(&v4.octets());
            if rule == Address::Truncated {
                bytes[3] = 0;
            }
            4
        }
        (rule, IpAddr::V6(v6)) => {
            bytes = v6.octets();
            if rule == Address::Truncated {
                bytes[6..].fill(0);
            }
            16
        }
    };
    Kept { bytes, length }
}

/// Whom an address stands for when limits are counted: one IPv4 address, or one IPv6 /64.
#[must_use]
pub fn source(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u64::from(u32::from(v4)),
        // The upper half is never zero for a global address, so the two kinds do not meet.
        IpAddr::V6(v6) => (u128::from(v6) >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, rule: Address, expected: &[u8]) {
        let address: IpAddr = address.parse().unwrap();
        assert_eq!(keep(address, rule).bytes(), expected);
    }

    #[test]
    fn keeps_only_what_the_rule_allows() {
        check("192.0.2.77", Address::Full, &[192, 0, 2, 77]);
        check("192.0.2.77", Address::Truncated, &[192, 0, 2, 0]);
        check("::ffff:192.0.2.77", Address::Truncated, &[192, 0, 2, 0]);
        check("192.0.2.77", Address::None, &[]);
        check(
            "2001:db8:1:2::3",
            Address::Truncated,
            &[0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        );
    }

    #[test]
    fn an_ipv6_source_is_its_network() {
        let source_of = |text: &str| source(text.parse().unwrap());
        assert_eq!(source_of("2001:db8::1"), source_of("2001:db8::ffff"));
        assert_ne!(source_of("2001:db8::1"), source_of("2001:db8:0:1::1"));
        assert_eq!(source_of("::ffff:192.0.2.1"), source_of("192.0.2.1"));
    }
}
