//! Debian's HAProxy with the same links in a map file, without a log or with its log read by somebody.
//!
//! Fair: one thread, no keep-alive limit, the same path, target and header fields, the same certificate.
//! Unfair to Holdfast: without a log HAProxy writes nothing down; with one, what the socket cannot take
//! is dropped, and what the reader has not written yet is lost with the machine.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::campaign::{Campaign, PREFIX};
use crate::failure::{Failure, Result};
use crate::peer::{fill, make_folder, write_links};
use crate::process::{Cores, Running, installed};

/// HAProxy in a folder of its own.
pub(crate) struct Haproxy {
    folder: PathBuf,
}

#[derive(Default)]
struct Extras<'a> {
    secured: Option<(SocketAddr, &'a Path)>,
    log_socket: Option<&'a Path>,
}

impl Haproxy {
    pub(crate) fn is_installed() -> bool {
        installed("haproxy")
    }

    pub(crate) fn prepare(folder: &Path, campaign: &Campaign, address: SocketAddr) -> Result<Self> {
        Self::prepare_with(folder, campaign, address, &Extras::default())
    }

    /// The same that also logs each request to a datagram socket.
    pub(crate) fn prepare_logging(
        folder: &Path,
        campaign: &Campaign,
        address: SocketAddr,
        log_socket: &Path,
    ) -> Result<Self> {
        let extras = Extras { log_socket: Some(log_socket), ..Extras::default() };
        Self::prepare_with(folder, campaign, address, &extras)
    }

    /// The same that also answers over TLS at an address, with the certificate of a folder.
    pub(crate) fn prepare_secured(
        folder: &Path,
        campaign: &Campaign,
        address: SocketAddr,
        secured: (SocketAddr, &Path),
    ) -> Result<Self> {
        let extras = Extras { secured: Some(secured), ..Extras::default() };
        Self::prepare_with(folder, campaign, address, &extras)
    }

    fn prepare_with(
        folder: &Path,
        campaign: &Campaign,
        address: SocketAddr,
        extras: &Extras<'_>,
    ) -> Result<Self> {
        let write = || -> io::Result<PathBuf> {
            let folder = make_folder(folder)?;
            let links = folder.join("links.map");
            write_links(&links, campaign, "", "")?;
            let mut tls = String::new();
            if let Some((secured, certs)) = extras.secured {
                let both = [fs::read(certs.join("chain.pem"))?, fs::read(certs.join("key.pem"))?].concat();
                fs::write(folder.join("both.pem"), both)?;
                tls = format!("bind {secured} backlog 4096 ssl crt {}/both.pem", folder.display());
            }
            let (log_to, log) = match extras.log_socket {
                Some(socket) => {
                    (format!("log {} local0 info", socket.display()), "log global\n    option httplog")
                }
                None => (String::new(), ""),
            };
            let words = [
                ("ADDRESS", address.to_string()),
                ("LINKS", links.display().to_string()),
                ("LOG", log.to_owned()),
                ("LOG_TO", log_to),
                ("PREFIX", PREFIX.to_owned()),
                ("TLS", tls),
            ];
            fs::write(folder.join("haproxy.cfg"), fill(include_str!("../peers/haproxy.cfg"), &words))?;
            Ok(folder)
        };
        let folder = write().map_err(Failure::at("cannot prepare HAProxy"))?;
        Ok(Self { folder })
    }

    pub(crate) fn start(&self, cores: Cores) -> Result<Running> {
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(self.folder.join("haproxy.cfg"));
        Running::start(&mut command, cores)
    }
}
