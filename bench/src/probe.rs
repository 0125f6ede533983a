//! One plain HTTP request, to see that a server answers, and how.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::campaign::Campaign;
use crate::failure::{Failure, Result};
use crate::process::Running;

/// Waits until `server` redirects link `i` and checks where to; returns when that was.
pub(crate) fn wait_for_redirect(
    server: &mut Running,
    address: SocketAddr,
    campaign: &Campaign,
    i: u64,
    patience: Duration,
) -> Result<Instant> {
    let deadline = Instant::now() + patience;
    loop {
        let answer = redirect(address, &Campaign::path(i));
        let now = Instant::now();
        match answer {
            Ok(Some(target)) if target == campaign.target(i) => return Ok(now),
            Ok(Some(target)) => return Err(Failure::new(format!("link {i} leads to {target}"))),
            Ok(None) | Err(_) if now < deadline => {}
            Ok(None) => return Err(Failure::new(format!("link {i} is not redirected after {patience:?}"))),
            Err(error) => {
                return Err(Failure::at(format!("no answer from {address} after {patience:?}"))(error));
            }
        }
        server.still_runs()?;
        sleep(Duration::from_millis(1));
    }
}

/// The target that `path` is redirected to; none for any other answer.
pub(crate) fn redirect(address: SocketAddr, path: &str) -> io::Result<Option<String>> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
        let mut part = [0; 4096];
        let length = stream.read(&mut part)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&part[..length]);
    }
    Ok(location(&String::from_utf8_lossy(&bytes)))
}

fn location(head: &str) -> Option<String> {
    let mut lines = head.lines();
    if lines.next()?.split(' ').nth(1)? != "302" {
        return None;
    }
    let (_, target) = lines
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("location"))?;
    Some(target.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_redirect_has_a_target() {
        let redirected = "HTTP/1.1 302 Found\r\nLocation: https://a.example/?b=c: d\r\n\r\n";
        assert_eq!(location(redirected).as_deref(), Some("https://a.example/?b=c: d"));
        assert_eq!(location("HTTP/1.1 200 OK\r\nLocation: https://a.example/\r\n\r\n"), None);
        assert_eq!(location("HTTP/1.1 302 Found\r\n\r\n"), None);
    }
}
