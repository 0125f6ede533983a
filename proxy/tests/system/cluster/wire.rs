//! The network between an edge and its server, which can be cut: bytes vanish, and nobody is told.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::Cluster;

/// How soon a quiet connection notices that the network was cut.
const TURN: Duration = Duration::from_millis(20);

/// A relay to a server; it ends when it is dropped.
pub struct Wire {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    cut: AtomicBool,
    ended: AtomicBool,
}

impl Wire {
    /// A whole one.
    pub fn to(cluster: &Cluster) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("it does not wait");
        let address = listener.local_addr().expect("address");
        let server = SocketAddr::from(([127, 0, 0, 1], cluster.port()));
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || accept(&listener, server, &shared));
        Self { address, state }
    }

    /// From now on nothing arrives. Connections that are open are lost, though nobody learns of it.
    pub fn cut(&self) {
        self.state.cut.store(true, Relaxed);
    }

    /// New connections arrive again.
    pub fn mend(&self) {
        self.state.cut.store(false, Relaxed);
    }

    /// Where an edge finds the server's database through it.
    pub fn url(&self, cluster: &Cluster) -> String {
        cluster.url().replace(&cluster.port().to_string(), &self.address.port().to_string())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.state.ended.store(true, Relaxed);
    }
}

fn accept(listener: &TcpListener, server: SocketAddr, state: &Arc<State>) {
    while !state.ended.load(Relaxed) {
        let Ok((client, _)) = listener.accept() else {
            std::thread::sleep(TURN);
            continue;
        };
        let Ok(server) = TcpStream::connect(server) else { continue };
        let lost = Arc::new(AtomicBool::new(state.cut.load(Relaxed)));
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (from, to) = (from.try_clone().expect("socket"), to.try_clone().expect("socket"));
            let (state, lost) = (Arc::clone(state), Arc::clone(&lost));
            std::thread::spawn(move || forward(from, to, &state, &lost));
        }
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, state: &State, lost: &AtomicBool) {
    from.set_nonblocking(false).expect("it waits");
    from.set_read_timeout(Some(TURN)).expect("timeout");
    let mut chunk = [0; 64 * 1024];
    while !state.ended.load(Relaxed) {
        let read = from.read(&mut chunk);
        if state.cut.load(Relaxed) {
            lost.store(true, Relaxed);
        }
        match read {
            // An end is not heard of over a network that is cut.
            Ok(0) if lost.load(Relaxed) => std::thread::sleep(TURN),
            Ok(0) => break,
            Ok(_) if lost.load(Relaxed) => {}
            Ok(read) if to.write_all(&chunk[..read]).is_err() => break,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}
