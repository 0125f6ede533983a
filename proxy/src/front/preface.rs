//! The PROXY protocol, versions 1 and 2: a load balancer's word on who connected to it.
//!
//! It comes before everything else, TLS included, and only from the networks that are trusted for it.
//! Nothing beyond the header is read from the connection.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest line of version 1, with its end.
const LINE_BYTES_MAX: usize = 107;
/// Longest body of version 2 that is taken: two addresses and what a load balancer may add to them.
const BODY_BYTES_MAX: usize = 2048;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// This client connected to the load balancer.
    Client(IpAddr),
    /// The load balancer itself did, to see whether we are alive, or it does not say who did.
    Itself,
}

/// Not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoHeader;

/// Reads the header from a connection, and not a byte more.
///
/// # Cancel safety
/// Dropping the future loses what was read.
pub(super) async fn read(stream: &mut TcpStream) -> Result<Said, NoHeader> {
    let lost = |_: io::Error| NoHeader;
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await.map_err(lost)?;
    if start != *SIGNATURE {
        let mut line = Vec::with_capacity(LINE_BYTES_MAX);
        line.extend_from_slice(&start);
        while !line.ends_with(b"\r\n") {
            if line.len() == LINE_BYTES_MAX || !line.starts_with(b"PROXY ") {
                return Err(NoHeader);
            }
            // What follows the line is not ours to read, and how long it is only its end tells.
            line.push(stream.read_u8().await.map_err(lost)?);
        }
        return parse_line(&line);
    }
    let mut rest = [0; 4];
    stream.read_exact(&mut rest).await.map_err(lost)?;
    let [command, family, high, low] = rest;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > BODY_BYTES_MAX {
        return Err(NoHeader);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.map_err(lost)?;
    parse_body(command, family, &body)
}

/// Reads a whole header at the beginning of `bytes`; what was said, and how long it is.
///
/// # Errors
/// [`NoHeader`], also when it is not all there.
pub fn parse(bytes: &[u8]) -> Result<(Said, usize), NoHeader> {
    if let Some(rest) = bytes.strip_prefix(SIGNATURE) {
        let (&[command, family, high, low], rest) = rest.split_first_chunk().ok_or(NoHeader)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let body = rest.get(..length).filter(|_| length <= BODY_BYTES_MAX).ok_or(NoHeader)?;
        return Ok((parse_body(command, family, body)?, SIGNATURE.len() + 4 + length));
    }
    let head = bytes.get(..LINE_BYTES_MAX).unwrap_or(bytes);
    let end = memchr::memmem::find(head, b"\r\n").ok_or(NoHeader)? + 2;
    Ok((parse_line(&head[..end])?, end))
}

fn parse_line(line: &[u8]) -> Result<Said, NoHeader> {
    let line = str::from_utf8(line).map_err(|_| NoHeader)?.strip_suffix("\r\n").ok_or(NoHeader)?;
    let mut words = line.split(' ');
    if words.next() != Some("PROXY") {
        return Err(NoHeader);
    }
    let family = words.next().ok_or(NoHeader)?;
    if family == "UNKNOWN" {
        return Ok(Said::Itself);
    }
    let words: Vec<&str> = words.collect();
    let &[source, target, source_port, target_port] = words.as_slice() else { return Err(NoHeader) };
    let is_port = |text: &str| text.parse::<u16>().is_ok() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_port(source_port) || !is_port(target_port) {
        return Err(NoHeader);
    }
    let both = |text: &str| text.parse::<IpAddr>().map_err(|_| NoHeader);
    let (source, target) = (both(source)?, both(target)?);
    match family {
        "TCP4" if source.is_ipv4() && target.is_ipv4() => Ok(Said::Client(source)),
        "TCP6" if source.is_ipv6() && target.is_ipv6() => Ok(Said::Client(source.to_canonical())),
        _ => Err(NoHeader),
    }
}

fn parse_body(command: u8, family: u8, body: &[u8]) -> Result<Said, NoHeader> {
    match command {
        0x20 => return Ok(Said::Itself),
        0x21 => {}
        _ => return Err(NoHeader),
    }
    // The high half is the family, the low half the transport, which for us is a stream.
    match family {
        0x11 => {
            let (source, _) = body.split_first_chunk::<4>().filter(|_| body.len() >= 12).ok_or(NoHeader)?;
            Ok(Said::Client(Ipv4Addr::from(*source).into()))
        }
        0x21 => {
            let (source, _) = body.split_first_chunk::<16>().filter(|_| body.len() >= 36).ok_or(NoHeader)?;
            Ok(Said::Client(IpAddr::from(Ipv6Addr::from(*source)).to_canonical()))
        }
        0x00 | 0x31 => Ok(Said::Itself),
        _ => Err(NoHeader),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Said {
        Said::Client(text.parse().unwrap())
    }

    fn version_2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &length, body].concat()
    }

    #[test]
    fn lines_of_version_1() {
        let check = |line: &str, expected: Result<Said, NoHeader>| {
            let bytes = format!("{line}GET / HTTP/1.1\r\n");
            assert_eq!(parse(bytes.as_bytes()), expected.map(|said| (said, line.len())), "{line:?}");
        };
        check("PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\n", Ok(client("192.0.2.1")));
        check("PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", Ok(client("2001:db8::1")));
        check("PROXY UNKNOWN\r\n", Ok(Said::Itself));
        check("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", Ok(Said::Itself));
        for bad in [
            "PROXY\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 4711\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 4711 443 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +4711 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.1 1 2\r\n",
            "proxy TCP4 192.0.2.1 198.51.100.1 1 2\r\n",
            "GET / HTTP/1.1\r\n",
        ] {
            check(bad, Err(NoHeader));
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "a".repeat(LINE_BYTES_MAX));
        assert_eq!(parse(long.as_bytes()), Err(NoHeader));
    }

    #[test]
    fn bodies_of_version_2() {
        let four = [&[192, 0, 2, 1, 198, 51, 100, 1, 0, 1, 1, 187][..], b"\x04\0\x01x"].concat();
        let mut six = vec![0; 36];
        six[..16].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        for (header, expected) in [
            (version_2(0x21, 0x11, &four), Ok(client("192.0.2.1"))),
            (version_2(0x21, 0x21, &six), Ok(client("2001:db8::1"))),
            (version_2(0x20, 0x00, &[]), Ok(Said::Itself)),
            (version_2(0x21, 0x00, &[]), Ok(Said::Itself)),
            (version_2(0x21, 0x11, &four[..11]), Err(NoHeader)),
            (version_2(0x21, 0x21, &six[..35]), Err(NoHeader)),
            (version_2(0x22, 0x11, &four), Err(NoHeader)),
            (version_2(0x11, 0x11, &four), Err(NoHeader)),
            (version_2(0x21, 0x12, &four), Err(NoHeader)),
            (version_2(0x21, 0x11, &[0; BODY_BYTES_MAX + 1]), Err(NoHeader)),
        ] {
            let length = header.len();
            let bytes = [&header[..], b"\x16\x03\x01"].concat();
            assert_eq!(parse(&bytes), expected.map(|said| (said, length)));
            for cut in 0..length {
                assert_eq!(parse(&header[..cut]), Err(NoHeader));
            }
        }
    }

    #[tokio::test]
    async fn not_a_byte_more_than_the_header_is_read() {
        use tokio::io::AsyncWriteExt as _;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let four = [192, 0, 2, 1, 198, 51, 100, 1, 0, 1, 1, 187];
        for header in
            [b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\n".to_vec(), version_2(0x21, 0x11, &four)]
        {
            let mut sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            sender.write_all(&[&header[..], b"rest"].concat()).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            assert_eq!(read(&mut stream).await, Ok(client("192.0.2.1")));
            let mut rest = [0; 4];
            stream.read_exact(&mut rest).await.unwrap();
            assert_eq!(&rest, b"rest");
        }
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        sender.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_eq!(read(&mut stream).await, Err(NoHeader));
    }
}
