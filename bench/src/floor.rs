//! The responder that does no work: one fixed redirect for each request head, by epoll, on one thread.
//!
//! It is what the kernel and the load generator allow. It does not parse, look up, record or keep time,
//! and a connection that can't take an answer at once is dropped.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;

use crate::failure::{Failure, Result};

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

/// Serves until the process is killed.
pub(crate) fn serve(listen: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen).map_err(Failure::at(format!("cannot listen on {listen}")))?;
    turn(&listener).map_err(Failure::at("the floor responder ended"))
}

struct Connection {
    stream: TcpStream,
    /// How many bytes of the end of a head were seen last.
    ending: usize,
}

fn turn(listener: &TcpListener) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let mut connections = HashMap::new();
    let mut last_id = LISTENER;
    let mut events = Vec::with_capacity(EVENTS_MAX);
    let mut answers = Vec::new();
    loop {
        epoll::wait(&epoll, spare_capacity(&mut events), None)?;
        for event in events.drain(..) {
            let id = event.data.u64();
            if id != LISTENER {
                let open =
                    connections.get_mut(&id).is_some_and(|connection| answer(connection, &mut answers));
                if !open {
                    connections.remove(&id); // closing takes it out of the epoll set
                }
                continue;
            }
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                last_id += 1;
                epoll::add(&epoll, &stream, epoll::EventData::new_u64(last_id), epoll::EventFlags::IN)?;
                connections.insert(last_id, Connection { stream, ending: 0 });
            }
        }
    }
}

/// Answers every head that has ended; false when the connection is at its end.
fn answer(connection: &mut Connection, answers: &mut Vec<u8>) -> bool {
    let mut bytes = [0; 16 * 1024];
    let length = match connection.stream.read(&mut bytes) {
        Ok(0) => return false,
        Ok(length) => length,
        Err(error) => return error.kind() == ErrorKind::WouldBlock,
    };
    answers.clear();
    for _ in 0..heads_ended(&bytes[..length], &mut connection.ending) {
        answers.extend_from_slice(ANSWER);
    }
    connection.stream.write(answers).is_ok_and(|written| written == answers.len())
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
