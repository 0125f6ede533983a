//! Who stands before us: load balancers that name the client, and what they say of it.
//!
//! Only a peer from a configured network is believed. What others say of themselves is left alone.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::{HeaderMap, HeaderName};

/// A network such as `10.0.0.0/8`; an address alone is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// As IPv6, into which IPv4 is mapped: a listener of both sees it so.
    first: u128,
    mask: u128,
    /// As it was written.
    address: IpAddr,
    bits: u8,
}

/// Not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoNetwork;

impl fmt::Display for NoNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an IP address, nor the first one of a network with the length of its prefix")
    }
}

impl std::error::Error for NoNetwork {}

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| NoNetwork)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NoNetwork)?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(bits_max);
        if bits > bits_max {
            return Err(NoNetwork);
        }
        let mask = u128::MAX.checked_shl(u32::from(bits_max - bits)).unwrap_or(0);
        let first = number(address);
        // What is written must be the network's first address: anything else is a slip of the pen.
        if first & mask != first {
            return Err(NoNetwork);
        }
        Ok(Self { first, mask, address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Whether `address` is in one of `networks`.
#[must_use]
pub fn includes(networks: &[Network], address: IpAddr) -> bool {
    let address = number(address);
    networks.iter().any(|network| address & network.mask == network.first)
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client that trusted proxies name in `X-Forwarded-For`: the last address that is no proxy's.
///
/// What stands left of it was sent by the client itself, and may be a lie. `None` when nothing is named,
/// or something that is no address.
#[must_use]
pub fn forwarded(headers: &HeaderMap, trusted: &[Network]) -> Option<IpAddr> {
    let mut nearest = None;
    for line in headers.get_all(FORWARDED_FOR).iter().rev() {
        for part in line.as_bytes().rsplit(|&byte| byte == b',') {
            let Some(address) = str::from_utf8(part).ok().and_then(address) else { return nearest };
            nearest = Some(address);
            if !includes(trusted, address) {
                return nearest;
            }
        }
    }
    nearest
}

/// An address as proxies write it: bare, in brackets, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        // A colon alone parts an address of IPv4 from its port.
        None => match text.split_once(':') {
            Some((address, port)) if !port.contains(':') => address,
            _ => text,
        },
    };
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn networks_are_read_and_shown() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), shown);
        }
        for bad in ["", "10.0.0.1/8", "10.0.0.0/33", "2001:db8::/129", "10.0.0.0/", "host", "10.0.0.0/-1"] {
            assert_eq!(bad.parse::<Network>(), Err(NoNetwork), "{bad}");
        }
    }

    #[test]
    fn a_network_includes_its_addresses_and_no_others() {
        let own = networks(&["10.0.0.0/8", "2001:db8::/32"]);
        for inside in ["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3", "2001:db8:1::1"] {
            assert!(includes(&own, inside.parse().unwrap()), "{inside}");
        }
        for outside in ["9.255.255.255", "11.0.0.0", "2001:db9::", "::1", "::10.1.2.3"] {
            assert!(!includes(&own, outside.parse().unwrap()), "{outside}");
        }
        assert!(!includes(&networks(&["0.0.0.0/0"]), "2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_proxys() {
        let trusted = networks(&["10.0.0.0/8"]);
        let check = |lines: &[&'static str], expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(FORWARDED_FOR, HeaderValue::from_static(line));
            }
            let expected: Option<IpAddr> = expected.map(|text| text.parse().unwrap());
            assert_eq!(forwarded(&headers, &trusted), expected, "{lines:?}");
        };
        check(&[], None);
        check(&["192.0.2.1"], Some("192.0.2.1"));
        check(&["192.0.2.9, 192.0.2.1"], Some("192.0.2.1"));
        check(&["192.0.2.9, 192.0.2.1, 10.1.1.1,10.2.2.2"], Some("192.0.2.1"));
        check(&["192.0.2.9", "192.0.2.1", "10.1.1.1"], Some("192.0.2.1"));
        check(&["10.1.1.1, 10.2.2.2"], Some("10.1.1.1"));
        check(&["192.0.2.1:4711"], Some("192.0.2.1"));
        check(&["[2001:db8::1]:4711"], Some("2001:db8::1"));
        check(&["2001:db8::1"], Some("2001:db8::1"));
        check(&["::ffff:192.0.2.1"], Some("192.0.2.1"));
        check(&["192.0.2.1, unknown"], None);
        check(&["192.0.2.1, unknown, 10.1.1.1"], Some("10.1.1.1"));
        check(&[""], None);
    }
}
