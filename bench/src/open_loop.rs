//! Clicks at a fixed rate: each has an intended time, and its latency counts from there.
//!
//! A server that stalls is not spared: the clicks of that time are due all the same, queue for a free
//! connection and count their wait (no coordinated omission). The client spins on a core of its own,
//! because a timer would wake it late; how often it was late itself is part of the outcome. One click
//! at a time is under way on each connection.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use crate::campaign::Campaign;
use crate::failure::{Failure, Result};
use crate::process::{CLIENT, on};

/// What is sent, how fast, and how long.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) campaign: Campaign,
    /// Whether the answers must lead to the link's own page; the floor's can't.
    pub(crate) checked: bool,
    pub(crate) connections: usize,
    pub(crate) per_second: u64,
    /// No click is intended later than this.
    pub(crate) span_max: Duration,
    pub(crate) seed: u64,
}

/// One click.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    /// When it was to be sent, since the begin.
    pub(crate) intended: Duration,
    /// From then to the end of its answer.
    pub(crate) latency: Duration,
    /// Whether the answer was the redirect that was expected.
    pub(crate) redirected: bool,
}

/// What came of a plan.
pub(crate) struct Outcome {
    pub(crate) begin: Instant,
    pub(crate) samples: Vec<Sample>,
    /// Clicks that the client noticed more than [`LATE`] after they were due.
    pub(crate) late: u64,
    /// Connections that ended before their time.
    pub(crate) broken: u64,
}

impl Outcome {
    pub(crate) fn failed(&self) -> u64 {
        self.samples.iter().filter(|sample| !sample.redirected).count() as u64
    }

    pub(crate) fn late_share(&self) -> f64 {
        self.late as f64 / self.samples.len() as f64
    }
}

/// A click that the client sends later than this is its own fault, not the server's.
pub(crate) const LATE: Duration = Duration::from_micros(100);
/// Answers that take longer count as failed.
const PATIENCE: Duration = Duration::from_secs(10);
const EVENTS_MAX: usize = 256;
/// The same header fields as wrk's script sends.
const FIELDS: &str = "User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.9\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Referer: https://mail.example.com/\r\n\r\n";

/// Runs `plan` on the client's core until `stop` or its end, and waits for the answers.
pub(crate) fn run(plan: &Plan, stop: &AtomicBool) -> Result<Outcome> {
    on(CLIENT, || {
        let cannot = || Failure::at(format!("cannot click on {}", plan.address));
        Client::new(plan).map_err(cannot())?.run(stop).map_err(cannot())
    })
}

struct Connection {
    stream: TcpStream,
    /// The click under way.
    click: Option<Click>,
    answer: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Click {
    intended: Duration,
    link: u64,
}

struct Client<'a> {
    plan: &'a Plan,
    epoll: rustix::fd::OwnedFd,
    connections: Vec<Connection>,
    /// Connections without a click, the one that waits longest first.
    free: VecDeque<usize>,
    /// Clicks that are due and have no connection.
    waiting: VecDeque<Click>,
    sent: u64,
    outcome: Outcome,
}

impl<'a> Client<'a> {
    fn new(plan: &'a Plan) -> io::Result<Self> {
        // A vector that grows copies itself, which would make the client late.
        let samples_max = plan.span_max.as_secs_f64() * plan.per_second as f64;
        let mut client = Self {
            plan,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            connections: Vec::with_capacity(plan.connections),
            free: (0..plan.connections).collect(),
            waiting: VecDeque::new(),
            sent: 0,
            outcome: Outcome {
                begin: Instant::now(),
                samples: Vec::with_capacity(samples_max as usize + 1),
                late: 0,
                broken: 0,
            },
        };
        for index in 0..plan.connections {
            let connection = client.connect(index)?;
            client.connections.push(connection);
        }
        Ok(client)
    }

    fn connect(&self, index: usize) -> io::Result<Connection> {
        let stream = TcpStream::connect(self.plan.address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
        Ok(Connection { stream, click: None, answer: Vec::with_capacity(4096) })
    }

    fn run(mut self, stop: &AtomicBool) -> io::Result<Outcome> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut sending = true;
        self.outcome.begin = Instant::now();
        loop {
            sending = sending && !stop.load(Relaxed) && self.send_due()?;
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&Timespec::default()))?;
            for event in events.drain(..) {
                self.read(event.data.u64() as usize)?;
            }
            if !sending {
                let oldest = self.under_way().map(|click| click.intended).min();
                match oldest {
                    None => return Ok(self.outcome),
                    Some(oldest) if self.now() > oldest + PATIENCE => break,
                    Some(_) => {}
                }
            }
        }
        let latency = PATIENCE;
        let given_up: Vec<Click> = self.under_way().collect();
        let failed =
            given_up.iter().map(|click| Sample { intended: click.intended, latency, redirected: false });
        self.outcome.samples.extend(failed);
        Ok(self.outcome)
    }

    fn now(&self) -> Duration {
        self.outcome.begin.elapsed()
    }

    fn under_way(&self) -> impl Iterator<Item = Click> {
        self.connections.iter().filter_map(|connection| connection.click).chain(self.waiting.iter().copied())
    }

    /// Sends what is due, as far as connections are free; false once all of the plan is sent.
    fn send_due(&mut self) -> io::Result<bool> {
        loop {
            let intended = Duration::from_nanos(self.sent * 1_000_000_000 / self.plan.per_second);
            if intended >= self.plan.span_max {
                return Ok(false);
            }
            let now = self.now();
            if intended > now {
                return Ok(true);
            }
            self.outcome.late += u64::from(now - intended > LATE);
            let link = scattered(self.plan.seed + self.sent) % self.plan.campaign.links;
            self.sent += 1;
            self.waiting.push_back(Click { intended, link });
            self.send_waiting()?;
        }
    }

    fn send_waiting(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            let Some(index) = self.free.pop_front() else { return Ok(()) };
            let Some(click) = self.waiting.pop_front() else { return Ok(()) };
            let connection = &mut self.connections[index];
            connection.click = Some(click);
            let request = format!(
                "GET {} HTTP/1.1\r\nHost: {}\r\n{FIELDS}",
                Campaign::path(click.link),
                self.plan.address
            );
            if !connection.stream.write(request.as_bytes()).is_ok_and(|written| written == request.len()) {
                self.replace(index)?;
            }
        }
        Ok(())
    }

    fn read(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        let mut part = [0; 4096];
        match connection.stream.read(&mut part) {
            Ok(0) => return self.replace(index),
            Ok(length) => connection.answer.extend_from_slice(&part[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(_) => return self.replace(index),
        }
        if !is_whole(&connection.answer) {
            return Ok(());
        }
        let Some(click) = connection.click.take() else { return self.replace(index) };
        let latency = self.outcome.begin.elapsed() - click.intended;
        let redirected = self.plan.is_redirect(&connection.answer, click.link);
        connection.answer.clear();
        self.outcome.samples.push(Sample { intended: click.intended, latency, redirected });
        self.free.push_back(index);
        self.send_waiting()
    }

    /// Opens a connection anew that ended; the click that was under way on it has failed.
    fn replace(&mut self, index: usize) -> io::Result<()> {
        self.outcome.broken += 1;
        if let Some(Click { intended, .. }) = self.connections[index].click {
            let latency = self.now() - intended;
            self.outcome.samples.push(Sample { intended, latency, redirected: false });
            self.free.push_back(index);
        }
        self.connections[index] = self.connect(index)?;
        Ok(())
    }
}

impl Plan {
    fn is_redirect(&self, answer: &[u8], link: u64) -> bool {
        let target = self.campaign.target(link);
        let page = target.split_inclusive('?').next().unwrap_or(&target).as_bytes();
        answer.starts_with(b"HTTP/1.1 302 ")
            && (!self.checked || answer.windows(page.len()).any(|window| window == page))
    }
}

/// Whether the head is there and all of the body that it announces.
fn is_whole(answer: &[u8]) -> bool {
    let Some(head_bytes) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..head_bytes]);
    let body_bytes = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0);
    answer.len() >= head_bytes + 4 + body_bytes
}

/// Mixes the bits of a counter (SplitMix64), so that links come in no order.
fn scattered(counter: u64) -> u64 {
    let mut bits = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::Targets;

    #[test]
    fn an_answer_is_whole_with_its_body() {
        for (answer, expected) in [
            ("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", true),
            ("HTTP/1.1 302 Found\r\ncontent-length: 2\r\n\r\na", false),
            ("HTTP/1.1 302 Found\r\ncontent-length: 2\r\n\r\nab", true),
            ("HTTP/1.1 302 Found\r\n", false),
        ] {
            assert_eq!(is_whole(answer.as_bytes()), expected, "{answer}");
        }
    }

    #[test]
    fn only_the_redirect_to_the_link_s_page_counts() {
        let plan = Plan {
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            campaign: Campaign { links: 10, targets: Targets::Distinct },
            checked: true,
            connections: 1,
            per_second: 1,
            span_max: Duration::ZERO,
            seed: 0,
        };
        let answer = |i| format!("HTTP/1.1 302 Found\r\nlocation: {}\r\n\r\n", plan.campaign.target(i));
        assert!(plan.is_redirect(answer(3).as_bytes(), 3));
        assert!(!plan.is_redirect(answer(4).as_bytes(), 3));
        assert!(Plan { checked: false, ..plan }.is_redirect(answer(4).as_bytes(), 3));
        assert!(!plan.is_redirect(answer(3).replace("302", "200").as_bytes(), 3));
    }
}
