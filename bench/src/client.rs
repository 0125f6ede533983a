//! The bench's own load generator: clicks at a fixed rate, or as fast as the answers come.
//!
//! At a fixed rate each click has an intended time, and its latency counts from there. A server that
//! stalls is not spared: the clicks of that time are due all the same, queue for a free connection and
//! count their wait (no coordinated omission). The client spins on a core of its own, because a timer
//! would wake it late; which clicks it was late for itself is part of the outcome. One click at a time
//! is under way on each connection.

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
    pub(crate) audience: Audience,
    pub(crate) pace: Pace,
    /// No click is intended later than this.
    pub(crate) span_max: Duration,
    pub(crate) seed: u64,
}

/// Who clicks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// One click after the other, each on a link of its own.
    People,
    /// Who comes after a mailing: of ten hits in a row three are one scanner's, who asks for one link at
    /// once by HEAD and twice by GET. Each hit has its number as a query, `n=7`.
    Mailing,
}

/// Who sends one hit of an audience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Person,
    Head,
    Robot,
}

impl Audience {
    /// Of each block of a mailing's hits.
    const BLOCK: u64 = 10;
    const SCANNED: u64 = 3;

    /// Who sends the hit, and the number of the first that comes with it at once, whose link it is for.
    fn hit(self, number: u64) -> (Sender, u64) {
        let place = number % Self::BLOCK;
        match self {
            Self::Mailing if place < Self::SCANNED => {
                (if place == 0 { Sender::Head } else { Sender::Robot }, number - place)
            }
            Self::People | Self::Mailing => (Sender::Person, number),
        }
    }
}

/// When the next click is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// So many in a second, whatever the answers do.
    PerSecond(u64),
    /// The same with so many until a time, and so many after it.
    Burst { per_second: u64, until: Duration, then_per_second: u64 },
    /// As soon as a connection has the answer to its last one.
    Answers,
}

impl Pace {
    /// When the click of this number is to be sent; where answers say that, it is now.
    fn intended(self, number: u64, now: Duration) -> Duration {
        let after = |number: u64, per_second: u64| {
            Duration::from_nanos((u128::from(number) * 1_000_000_000 / u128::from(per_second)) as u64)
        };
        match self {
            Self::PerSecond(per_second) => after(number, per_second),
            Self::Burst { per_second, until, then_per_second } => {
                let first = (until.as_secs_f64() * per_second as f64) as u64;
                match number.checked_sub(first) {
                    None => after(number, per_second),
                    Some(later) => until + after(later, then_per_second),
                }
            }
            Self::Answers => now,
        }
    }

    /// About so many are sent in `span`, at most.
    fn clicks(self, span: Duration) -> f64 {
        let seconds = span.as_secs_f64();
        match self {
            Self::PerSecond(per_second) => seconds * per_second as f64,
            Self::Burst { per_second, until, then_per_second } => {
                until.as_secs_f64() * per_second as f64 + seconds * then_per_second as f64
            }
            Self::Answers => seconds * ANSWERS_PER_SECOND_MAX,
        }
    }
}

/// One click.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    /// In the order in which they were to be sent, from 0.
    pub(crate) number: u64,
    /// When it was to be sent, since the begin.
    pub(crate) intended: Duration,
    /// From then to the end of its answer.
    pub(crate) latency: Duration,
    /// Whether the answer was the redirect that was expected.
    pub(crate) redirected: bool,
    /// The answer's status; 0 where there was none.
    pub(crate) status: u16,
    /// Whether the client noticed more than [`LATE`] too late that it was due.
    pub(crate) late: bool,
}

/// What came of a plan.
pub(crate) struct Outcome {
    pub(crate) begin: Instant,
    pub(crate) samples: Vec<Sample>,
    /// Connections that ended before their time.
    pub(crate) broken: u64,
}

impl Outcome {
    fn new(samples_max: usize) -> Self {
        Self { begin: Instant::now(), samples: Vec::with_capacity(samples_max), broken: 0 }
    }

    pub(crate) fn failed(&self) -> u64 {
        self.samples.iter().filter(|sample| !sample.redirected).count() as u64
    }
}

/// The share of `samples` that the client was late for.
pub(crate) fn late_share<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> f64 {
    let (mut late, mut all) = (0u64, 0u64);
    for sample in samples {
        late += u64::from(sample.late);
        all += 1;
    }
    late as f64 / all as f64
}

/// A click that the client sends later than this is its own fault, not the server's.
pub(crate) const LATE: Duration = Duration::from_micros(100);
/// Answers that take longer count as failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
const EVENTS_MAX: usize = 256;
/// More than one core can ask for.
const ANSWERS_PER_SECOND_MAX: f64 = 500_000.0;
const BROWSER: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36";
const SCANNER: &str = "Mozilla/5.0 (compatible; ExampleLinkBot/1.0; +https://scanner.example.com/)";
/// The same header fields as wrk's script sends, after the user agent.
const FIELDS: &str = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.9\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Referer: https://mail.example.com/\r\n\r\n";

/// Runs `plan` on the client's core until `stop` or its end, and waits for the answers.
pub(crate) fn run(plan: &Plan, stop: &AtomicBool) -> Result<Outcome> {
    Client::open(plan)?.run(stop)
}

struct Connection {
    stream: TcpStream,
    /// The click under way.
    click: Option<Click>,
    answer: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Click {
    number: u64,
    intended: Duration,
    late: bool,
    link: u64,
    sender: Sender,
}

impl Click {
    /// With this status, and with the redirect that was expected or not.
    fn ended(self, now: Duration, status: u16, redirected: bool) -> Sample {
        let Self { number, intended, late, .. } = self;
        let latency = now - intended;
        Sample { number, intended, latency, redirected: redirected && latency <= PATIENCE, status, late }
    }
}

/// Open connections; they stay open until this is dropped.
pub(crate) struct Client<'a> {
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
    pub(crate) fn open(plan: &'a Plan) -> Result<Self> {
        let open = || {
            let mut client = Self {
                plan,
                epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
                connections: Vec::with_capacity(plan.connections),
                free: (0..plan.connections).collect(),
                waiting: VecDeque::new(),
                sent: 0,
                outcome: Outcome::new(0),
            };
            for index in 0..plan.connections {
                let connection = client.connect(index)?;
                client.connections.push(connection);
            }
            Ok(client)
        };
        open().map_err(Failure::at(format!("cannot connect to {}", plan.address)))
    }

    /// See [`run`]; may be called once.
    pub(crate) fn run(&mut self, stop: &AtomicBool) -> Result<Outcome> {
        on(CLIENT, || {
            self.click_until(stop).map_err(Failure::at(format!("cannot click on {}", self.plan.address)))?;
            Ok(std::mem::replace(&mut self.outcome, Outcome::new(0)))
        })
    }

    fn connect(&self, index: usize) -> io::Result<Connection> {
        let stream = TcpStream::connect(self.plan.address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
        Ok(Connection { stream, click: None, answer: Vec::with_capacity(4096) })
    }

    fn click_until(&mut self, stop: &AtomicBool) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut sending = true;
        self.outcome = Outcome::new(self.plan.samples_max());
        loop {
            sending = sending && !stop.load(Relaxed) && self.send_due()?;
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&Timespec::default()))?;
            for event in events.drain(..) {
                self.read(event.data.u64() as usize)?;
                // Many answers come at once after a sync; what falls due meanwhile must not wait for all.
                sending = sending && self.send_due()?;
            }
            if !sending {
                let oldest = self.under_way().map(|click| click.intended).min();
                match oldest {
                    None => return Ok(()),
                    Some(oldest) if self.now() > oldest + PATIENCE => break,
                    Some(_) => {}
                }
            }
        }
        let now = self.now();
        let given_up: Vec<Sample> = self.under_way().map(|click| click.ended(now, 0, false)).collect();
        self.outcome.samples.extend(given_up);
        Ok(())
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
            let now = self.now();
            let (sender, first) = self.plan.audience.hit(self.sent);
            let intended = self.plan.pace.intended(first, now);
            if intended >= self.plan.span_max {
                return Ok(false);
            }
            if intended > now || (matches!(self.plan.pace, Pace::Answers) && self.free.is_empty()) {
                return Ok(true);
            }
            let link = scattered(self.plan.seed + first) % self.plan.campaign.links;
            let late = now - intended > LATE;
            self.waiting.push_back(Click { number: self.sent, intended, late, link, sender });
            self.sent += 1;
            self.send_waiting()?;
        }
    }

    fn send_waiting(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            let Some(index) = self.free.pop_front() else { return Ok(()) };
            let Some(click) = self.waiting.pop_front() else { return Ok(()) };
            let connection = &mut self.connections[index];
            connection.click = Some(click);
            let request = self.plan.request(&click);
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
        let has_body = connection.click.is_none_or(|click| click.sender != Sender::Head);
        if !is_whole(&connection.answer, has_body) {
            return Ok(());
        }
        let Some(click) = connection.click.take() else { return self.replace(index) };
        let status = status_of(&connection.answer);
        let now = self.outcome.begin.elapsed();
        let redirected = self.plan.is_redirect(&connection.answer, click.link);
        connection.answer.clear();
        self.outcome.samples.push(click.ended(now, status, redirected));
        self.free.push_back(index);
        self.send_waiting()
    }

    /// Opens a connection anew that ended; the click that was under way on it has failed.
    fn replace(&mut self, index: usize) -> io::Result<()> {
        self.outcome.broken += 1;
        if let Some(click) = self.connections[index].click {
            let sample = click.ended(self.now(), 0, false);
            self.outcome.samples.push(sample);
            self.free.push_back(index);
        }
        self.connections[index] = self.connect(index)?;
        Ok(())
    }
}

impl Plan {
    /// A vector that grows copies itself, which would make the client late.
    fn samples_max(&self) -> usize {
        self.pace.clicks(self.span_max) as usize + self.connections
    }

    fn request(&self, click: &Click) -> String {
        let (method, agent) = match click.sender {
            Sender::Person => ("GET", BROWSER),
            Sender::Head => ("HEAD", SCANNER),
            Sender::Robot => ("GET", SCANNER),
        };
        let path = Campaign::path(click.link);
        let query = match self.audience {
            Audience::People => String::new(),
            Audience::Mailing => format!("?n={}", click.number),
        };
        let host = self.address;
        format!("{method} {path}{query} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\n{FIELDS}")
    }

    fn is_redirect(&self, answer: &[u8], link: u64) -> bool {
        let target = self.campaign.target(link);
        let page = target.split_inclusive('?').next().unwrap_or(&target).as_bytes();
        answer.starts_with(b"HTTP/1.1 302 ")
            && (!self.checked || answer.windows(page.len()).any(|window| window == page))
    }
}

/// The number in the first line, 0 where there is none.
fn status_of(answer: &[u8]) -> u16 {
    let digits = answer.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
    digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0)
}

/// Whether the head is there and all of the body that it announces, if one comes.
fn is_whole(answer: &[u8], has_body: bool) -> bool {
    let Some(head_bytes) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    if !has_body {
        return true;
    }
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
            assert_eq!(is_whole(answer.as_bytes(), true), expected, "{answer}");
        }
        assert!(is_whole(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 9\r\n\r\n", false));
    }

    /// A server that drops its first connection at the first click and then answers after a stall.
    #[test]
    fn a_broken_connection_is_one_failed_click_and_a_stall_counts_for_all_that_were_due() {
        const STALL: Duration = Duration::from_millis(100);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let plan = Plan {
            address: listener.local_addr().expect("is bound"),
            campaign: Campaign { links: 10, targets: Targets::Distinct },
            checked: false,
            connections: 1,
            audience: Audience::People,
            pace: Pace::PerSecond(100),
            span_max: Duration::from_millis(100),
            seed: 0,
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut request = [0; 4096];
                let (mut first, _) = listener.accept().expect("the first connection");
                assert!(first.read(&mut request).is_ok_and(|length| length > 0));
                drop(first);
                let (mut second, _) = listener.accept().expect("the second connection");
                std::thread::sleep(STALL);
                while second.read(&mut request).is_ok_and(|length| length > 0) {
                    second.write_all(b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n").expect("is open");
                }
            });
            let mut client = Client::open(&plan).expect("connects");
            client.click_until(&AtomicBool::new(false)).expect("clicks");
            let Outcome { samples, broken, .. } = &client.outcome;
            assert_eq!((samples.len(), client.outcome.failed(), *broken), (10, 1, 1));
            // One stalled the connection; the others were due behind it, ten milliseconds apart.
            let waited = samples.iter().filter(|sample| sample.latency > Duration::from_millis(45)).count();
            assert!(waited >= 4, "{waited} clicks counted the stall");
        });
    }

    #[test]
    fn a_scanner_s_hits_are_for_one_link_at_one_time() {
        let hits: Vec<_> = (10..15).map(|number| Audience::Mailing.hit(number)).collect();
        let (head, robot, person) = (Sender::Head, Sender::Robot, Sender::Person);
        assert_eq!(hits, [(head, 10), (robot, 10), (robot, 10), (person, 13), (person, 14)]);
        assert_eq!(Audience::People.hit(10), (person, 10));
    }

    #[test]
    fn a_burst_goes_on_slower_after_its_time() {
        let until = Duration::from_secs(2);
        let pace = Pace::Burst { per_second: 10, until, then_per_second: 2 };
        let intended = |number| pace.intended(number, Duration::ZERO);
        assert_eq!(intended(19), Duration::from_millis(1900));
        assert_eq!(intended(20), until);
        assert_eq!(intended(22), Duration::from_secs(3));
    }

    #[test]
    fn only_the_redirect_to_the_link_s_page_counts() {
        let plan = Plan {
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            campaign: Campaign { links: 10, targets: Targets::Distinct },
            checked: true,
            connections: 1,
            audience: Audience::People,
            pace: Pace::Answers,
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
