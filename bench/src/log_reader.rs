//! Reads a log from a datagram socket into a file, as a syslog daemon does, with a buffer and no sync.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread::Builder;

use crate::failure::{Failure, Result};

/// The thread that reads; what it takes is work behind the answers.
pub(crate) const THREAD: &str = "log-reader";
const BUFFER_BYTES: usize = 64 * 1024;
const LINE_BYTES_MAX: usize = 8 * 1024;

/// Reads until the process is killed.
pub(crate) fn serve(socket: &Path, file: &Path) -> Result<()> {
    let failure = || Failure::at(format!("cannot read the log at {}", socket.display()));
    let datagrams = UnixDatagram::bind(socket).map_err(failure())?;
    let lines = File::create(file).map_err(failure())?;
    let reader =
        Builder::new().name(THREAD.to_owned()).spawn(move || read(&datagrams, lines)).map_err(failure())?;
    match reader.join() {
        Ok(ended) => ended.map_err(failure()),
        Err(_) => Err(Failure::new("the log's reader panicked")),
    }
}

fn read(datagrams: &UnixDatagram, lines: File) -> io::Result<()> {
    let mut lines = BufWriter::with_capacity(BUFFER_BYTES, lines);
    let mut line = [0; LINE_BYTES_MAX];
    loop {
        let length = datagrams.recv(&mut line)?;
        lines.write_all(&line[..length])?;
        if !line[..length].ends_with(b"\n") {
            lines.write_all(b"\n")?;
        }
    }
}
