//! The responder that does no work: one fixed redirect for each request head, by epoll, on one thread.
//!
//! It is what the kernel and the load generator allow. It does not parse or look up, and a connection
//! that can't take an answer at once is dropped. It records and keeps time only with a [`Tape`]: then
//! the answers of a turn wait until the turn is on it.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::time::Timespec;

use crate::failure::{Failure, Result};
use crate::tape::Tape;

/// The same length and fields as Holdfast's answer, date included, which never changes here.
const ANSWER: &[u8] = b"HTTP/1.1 302 Found\r\n\
    location: https://www.example.com/spring/offers/000000000?utm_source=mail&utm_campaign=spring-sale\r\n\
    cache-control: no-store\r\n\
    x-robots-tag: noindex\r\n\
    content-length: 0\r\n\
    date: Sat, 14 Jul 2012 10:00:00 GMT\r\n\r\n";
const HEAD_END: &[u8; 4] = b"\r\n\r\n";
const LISTENER: u64 = 0;
const EVENTS_MAX: usize = 256;

/// Serves until the process is killed; with a tape, answers what is on it.
pub(crate) fn serve(listen: SocketAddr, tape: Option<Tape>) -> Result<()> {
    let serve = || {
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
        Floor { listener, epoll, connections: HashMap::new(), last_id: LISTENER, tape, asked: Vec::new() }
            .turn()
    };
    serve().map_err(Failure::at(format!("the floor responder on {listen} ended")))
}

struct Floor {
    listener: TcpListener,
    epoll: std::os::fd::OwnedFd,
    connections: HashMap<u64, Connection>,
    last_id: u64,
    tape: Option<Tape>,
    /// Connections whose requests wait for the tape, and how many each has.
    asked: Vec<(u64, usize)>,
}

struct Connection {
    stream: TcpStream,
    /// How many bytes of the end of a head were seen last.
    ending: usize,
}

impl Floor {
    fn turn(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            let wait = self.wait()?;
            epoll::wait(&self.epoll, spare_capacity(&mut events), wait.as_ref())?;
            for event in events.drain(..) {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    id => self.read(id),
                }
            }
            self.record()?;
        }
    }

    /// How long the next turn may sleep: for ever, or until what was asked may be recorded.
    fn wait(&self) -> io::Result<Option<Timespec>> {
        let Some(tape) = self.tape.as_ref().filter(|_| !self.asked.is_empty()) else { return Ok(None) };
        let wait = tape.ready_at().saturating_duration_since(Instant::now());
        Timespec::try_from(wait).map(Some).map_err(io::Error::other)
    }

    fn accept(&mut self) -> io::Result<()> {
        while let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            self.last_id += 1;
            let data = epoll::EventData::new_u64(self.last_id);
            epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN)?;
            self.connections.insert(self.last_id, Connection { stream, ending: 0 });
        }
        Ok(())
    }

    fn read(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let open = match (connection.read(), &self.tape) {
            (Some(0), _) => true,
            (Some(heads), None) => connection.answer(heads),
            (Some(heads), Some(_)) => {
                self.asked.push((id, heads));
                true
            }
            (None, _) => false,
        };
        if !open {
            self.connections.remove(&id); // closing takes it out of the epoll set
        }
    }

    /// Once the tape's pace allows it, records all that was asked and answers it.
    fn record(&mut self) -> io::Result<()> {
        let Some(tape) = &mut self.tape else { return Ok(()) };
        if self.asked.is_empty() || Instant::now() < tape.ready_at() {
            return Ok(());
        }
        tape.append(self.asked.iter().map(|&(_, heads)| heads).sum())?;
        for (id, heads) in self.asked.drain(..) {
            // It may have ended since it asked.
            if self.connections.get_mut(&id).is_some_and(|connection| !connection.answer(heads)) {
                self.connections.remove(&id);
            }
        }
        Ok(())
    }
}

impl Connection {
    /// How many heads have ended; none when the connection is at its end.
    fn read(&mut self) -> Option<usize> {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => None,
            Ok(length) => Some(heads_ended(&bytes[..length], &mut self.ending)),
            Err(error) => (error.kind() == ErrorKind::WouldBlock).then_some(0),
        }
    }

    /// False when not all could be written.
    fn answer(&mut self, heads: usize) -> bool {
        if heads == 1 {
            return self.stream.write(ANSWER).is_ok_and(|written| written == ANSWER.len());
        }
        let answers = ANSWER.repeat(heads);
        self.stream.write(&answers).is_ok_and(|written| written == answers.len())
    }
}

/// Counts the heads that end in `bytes`; `ending` carries a part of an end from one read to the next.
fn heads_ended(bytes: &[u8], ending: &mut usize) -> usize {
    let mut ended = 0;
    for &byte in bytes {
        if byte == HEAD_END[*ending] {
            *ending += 1;
        } else {
            *ending = usize::from(byte == HEAD_END[0]);
        }
        if *ending == HEAD_END.len() {
            ended += 1;
            *ending = 0;
        }
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(reads: &[&str], expected: usize) {
        let mut ending = 0;
        let ended: usize = reads.iter().map(|read| heads_ended(read.as_bytes(), &mut ending)).sum();
        assert_eq!(ended, expected, "{reads:?}");
    }

    #[test]
    fn every_head_is_answered_once() {
        check(&["GET / HTTP/1.1\r\nHost: a\r\n\r\n"], 1);
        check(&["GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n"], 2);
        check(&["GET / HTTP/1.1\r\n", "\r", "\nGET /"], 1);
        check(&["GET / HTTP/1.1\r\nHost: a\r\n"], 0);
        check(&["\r\r\n\r\n"], 1);
    }
}
