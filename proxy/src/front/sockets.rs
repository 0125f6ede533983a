//! Listening sockets: bound by us, inherited from systemd, or taken over from the running edge.
//!
//! A socket that is handed over keeps its queue of connections: the old and the new program accept
//! from the same one, so an upgrade refuses nobody.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use socket2::{Domain, Protocol, Socket, Type};

/// File name of the socket in the data folder by which a running edge hands its listeners over.
pub const HAND_OVER_SOCKET: &str = "edge.sock";
/// Linux takes at most 253 descriptors in one message.
const DESCRIPTORS_MAX: usize = 250;
const ASK: u8 = b'T';
const READY: u8 = b'R';
/// What the answer says of the listeners that it carries.
const PUBLIC_ONLY: u8 = b'P';
const ADMIN_LAST: u8 = b'A';
/// How long either side waits for the other's next byte while sockets change hands.
const HAND_OVER_WAIT: Duration = Duration::from_secs(10);

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// HTTP.
    Http,
    /// HTTP within TLS.
    Https,
}

/// A listener of a data thread.
#[derive(Debug)]
pub struct Listening {
    /// Its socket.
    pub listener: TcpListener,
    /// What is spoken on it.
    pub port: Port,
}

/// Why there is no socket to listen on.
#[derive(Debug)]
pub enum SocketError {
    /// Another program listens there.
    Taken(SocketAddr),
    /// The address cannot be bound.
    Bind(SocketAddr, io::Error),
    /// systemd passed sockets of which none fits the configuration.
    Inherited(String),
    /// The running edge did not hand its sockets over.
    HandOver(io::Error),
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(address) => {
                write!(f, "address {address} is taken by another program; stop it or choose another address")
            }
            Self::Bind(address, _) => write!(f, "cannot listen on {address}"),
            Self::Inherited(what) => write!(f, "sockets passed by systemd do not fit: {what}"),
            Self::HandOver(_) => f.write_str("the running edge did not hand its sockets over"),
        }
    }
}

impl std::error::Error for SocketError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Taken(_) | Self::Inherited(_) => None,
            Self::Bind(_, error) | Self::HandOver(error) => Some(error),
        }
    }
}

/// Binds `address` once for each of `count` data threads; the kernel spreads connections over them.
///
/// Port 0 takes one free port for all. Two programs could share a port with `SO_REUSEPORT`, so a
/// socket without it tries the address first.
///
/// # Errors
/// [`SocketError::Taken`] when another program listens there.
pub fn bind(address: SocketAddr, count: usize, backlog: u32) -> Result<Vec<TcpListener>, SocketError> {
    let fail = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => SocketError::Taken(address),
        _ => SocketError::Bind(address, error),
    };
    let attempt = open(address, false).map_err(fail)?;
    let address = attempt.local_addr().ok().and_then(|bound| bound.as_socket()).unwrap_or(address);
    drop(attempt);
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    (0..count)
        .map(|_| {
            let socket = open(address, true)?;
            socket.listen(backlog)?;
            Ok(socket.into())
        })
        .collect::<io::Result<_>>()
        .map_err(fail)
}

fn open(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    if !shared {
        // Only a listening socket collides with one that may share its port.
        socket.listen(1)?;
    }
    Ok(socket)
}

/// The sockets that systemd passed (`LISTEN_FDS`), those for each list of `addresses` only, in the order of
/// the lists, which are named as settings are; empty without any.
///
/// # Errors
/// [`SocketError::Inherited`] when sockets were passed and an address of the configuration is not among them.
pub fn from_systemd<const N: usize>(
    addresses: [(&str, &[SocketAddr]); N],
) -> Result<[Vec<TcpListener>; N], SocketError> {
    let fail = |error: io::Error| SocketError::Inherited(error.to_string());
    let mut passed = listenfd::ListenFd::from_env();
    let mut listeners = [const { Vec::new() }; N];
    for index in 0..passed.len() {
        if let Ok(Some(listener)) = passed.take_tcp_listener(index) {
            let local = listener.local_addr().map_err(fail)?;
            for ((_, wanted), own) in addresses.iter().zip(&mut listeners) {
                if wanted.contains(&local) {
                    listener.set_nonblocking(true).map_err(fail)?;
                    own.push(listener.try_clone().map_err(fail)?);
                }
            }
        }
    }
    if listeners.iter().all(Vec::is_empty) {
        return Ok(listeners);
    }
    for ((setting, wanted), own) in addresses.iter().zip(&listeners) {
        let is_there = |address: &&SocketAddr| {
            own.iter().any(|listener| listener.local_addr().is_ok_and(|local| local == **address))
        };
        if let Some(address) = wanted.iter().find(|address| !is_there(address)) {
            return Err(SocketError::Inherited(format!("none listens on {address} (`{setting}`)")));
        }
    }
    Ok(listeners)
}

/// Gives each of `threads` data threads its listeners: every socket is accepted from, and every
/// thread has one of each address.
///
/// # Errors
/// The operating system's, when a socket cannot be duplicated.
pub fn spread(listeners: Vec<TcpListener>, threads: usize) -> io::Result<Vec<Vec<TcpListener>>> {
    let mut by_address: Vec<(SocketAddr, Vec<TcpListener>)> = Vec::new();
    for listener in listeners {
        let address = listener.local_addr()?;
        match by_address.iter_mut().find(|(known, _)| *known == address) {
            Some((_, same)) => same.push(listener),
            None => by_address.push((address, vec![listener])),
        }
    }
    let mut spread: Vec<Vec<TcpListener>> = (0..threads).map(|_| Vec::new()).collect();
    for (_, same) in by_address {
        let have = same.len();
        for thread in have..threads {
            spread[thread].push(same[thread % have].try_clone()?);
        }
        for (index, listener) in same.into_iter().enumerate() {
            spread[index % threads].push(listener);
        }
    }
    Ok(spread)
}

/// Asks the edge that runs on `data` for its listeners; `None` when none runs there.
///
/// The old edge stops following the database when it answers and drains once [`TakenOver::ready`]
/// is called; when this process dies before, the old one goes on.
///
/// # Errors
/// [`SocketError::HandOver`] when it runs and does not answer.
pub fn take_over(data: &Path) -> Result<Option<TakenOver>, SocketError> {
    let Ok(mut stream) = UnixStream::connect(data.join(HAND_OVER_SOCKET)) else { return Ok(None) };
    let (mut listeners, roles) = stream
        .set_read_timeout(Some(HAND_OVER_WAIT))
        .and_then(|()| stream.write_all(&[ASK]))
        .and_then(|()| receive(&stream))
        .map_err(SocketError::HandOver)?;
    let admin = if roles.admin_last { listeners.pop() } else { None };
    let https = listeners.split_off(listeners.len().saturating_sub(roles.https));
    Ok(Some(TakenOver { stream, listeners, https, admin }))
}

/// Sockets of the edge that ran before, and the line to it.
#[derive(Debug)]
pub struct TakenOver {
    stream: UnixStream,
    /// The public listeners of the old edge for HTTP.
    pub listeners: Vec<TcpListener>,
    /// Those for HTTP within TLS.
    pub https: Vec<TcpListener>,
    /// Its admin listener, where it had one on TCP.
    pub admin: Option<TcpListener>,
}

impl TakenOver {
    /// Tells the old edge to stop accepting and to drain.
    ///
    /// # Errors
    /// The operating system's; the old edge may have ended already.
    pub fn ready(mut self) -> io::Result<()> {
        self.stream.write_all(&[READY])
    }
}

/// Waits for the first byte of a process that wants to take over; false when it was something else.
///
/// Blocks for at most ten seconds.
///
/// # Errors
/// The operating system's.
pub fn asked(stream: &mut UnixStream) -> io::Result<bool> {
    stream.set_read_timeout(Some(HAND_OVER_WAIT))?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    Ok(byte == [ASK])
}

/// Sends the public listeners, and the admin listener where there is one, to the process that asked.
///
/// A release that knows nothing of https reads the first byte of what is said about them, and takes
/// the listeners for https, whose addresses are not in its configuration, for ones that were given up.
///
/// # Errors
/// The operating system's.
pub fn send(
    stream: &UnixStream,
    http: &[TcpListener],
    https: &[TcpListener],
    admin: Option<&TcpListener>,
) -> io::Result<()> {
    // What does not fit into one message is left out of the public ones: the others have their queue.
    let most = DESCRIPTORS_MAX - 1;
    let https = https.get(..most / 2).unwrap_or(https);
    let http = http.get(..most - https.len()).unwrap_or(http);
    let listeners: Vec<BorrowedFd<'_>> =
        http.iter().chain(https).chain(admin).map(|listener| listener.as_fd()).collect();
    let role = if admin.is_some() { ADMIN_LAST } else { PUBLIC_ONLY };
    let secured = u8::try_from(https.len()).map_err(|_| io::Error::other("too many listeners"))?;
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&listeners)) {
        return Err(io::Error::other("too many listeners to hand over"));
    }
    rustix::net::sendmsg(stream, &[IoSlice::new(&[role, secured])], &mut ancillary, SendFlags::empty())?;
    Ok(())
}

/// Waits until the new process says that it accepts connections; false when it ended before.
///
/// Blocks for at most `wait`.
///
/// # Errors
/// The operating system's.
pub fn confirmed(stream: &mut UnixStream, wait: Duration) -> io::Result<bool> {
    stream.set_read_timeout(Some(wait))?;
    let mut byte = [0];
    match stream.read(&mut byte)? {
        0 => Ok(false),
        _ => Ok(byte == [READY]),
    }
}

/// What is said of listeners that change hands.
struct Roles {
    admin_last: bool,
    /// How many of the last public ones are for https.
    https: usize,
}

fn receive(stream: &UnixStream) -> io::Result<(Vec<TcpListener>, Roles)> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    // The release before this one says one byte.
    let mut said = [PUBLIC_ONLY, 0];
    let received = rustix::net::recvmsg(
        stream.as_fd(),
        &mut [IoSliceMut::new(&mut said)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let descriptors: Vec<OwnedFd> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    let roles = Roles { admin_last: said[0] == ADMIN_LAST, https: said[1].into() };
    Ok((descriptors.into_iter().map(TcpListener::from).collect(), roles))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any_port() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn one_port_serves_all_threads_and_is_then_taken() {
        let listeners = bind(any_port(), 3, 16).unwrap();
        let address = listeners[0].local_addr().unwrap();
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == address));
        assert!(matches!(bind(address, 1, 16), Err(SocketError::Taken(taken)) if taken == address));
    }

    #[test]
    fn listeners_change_hands_with_their_queue() {
        let folder = tempfile::tempdir().unwrap();
        let listening = std::os::unix::net::UnixListener::bind(folder.path().join(HAND_OVER_SOCKET)).unwrap();
        let listeners = bind(any_port(), 1, 16).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").unwrap();
        let secured = bind(any_port(), 2, 16).unwrap();
        let waiting = std::net::TcpStream::connect(address).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listening.accept().unwrap();
                assert!(asked(&mut stream).unwrap());
                send(&stream, &listeners, &secured, Some(&admin)).unwrap();
                assert!(confirmed(&mut stream, Duration::from_secs(5)).unwrap());
            });
            let taken = take_over(folder.path()).unwrap().unwrap();
            assert_eq!((taken.listeners.len(), taken.https.len()), (1, 2));
            assert_eq!(taken.https[0].local_addr().unwrap(), secured[0].local_addr().unwrap());
            assert_eq!(taken.admin.as_ref().unwrap().local_addr().unwrap(), admin.local_addr().unwrap());
            let (_, peer) = loop {
                match taken.listeners[0].accept() {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                    accepted => break accepted.unwrap(),
                }
            };
            assert_eq!(peer, waiting.local_addr().unwrap());
            taken.ready().unwrap();
        });
    }

    #[test]
    fn nobody_to_take_over_from_is_no_fault() {
        let folder = tempfile::tempdir().unwrap();
        assert!(take_over(folder.path()).unwrap().is_none());
    }

    #[test]
    fn every_socket_is_accepted_from_whatever_the_number_of_threads() {
        for (sockets, threads) in [(1, 4), (4, 1), (3, 2), (2, 2)] {
            let spread = spread(bind(any_port(), sockets, 16).unwrap(), threads).unwrap();
            assert_eq!(spread.len(), threads);
            assert!(spread.iter().all(|own| !own.is_empty()), "{sockets} sockets, {threads} threads");
            assert_eq!(spread.iter().map(Vec::len).sum::<usize>(), sockets.max(threads));
        }
    }
}
