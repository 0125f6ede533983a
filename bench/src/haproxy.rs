//! Debian's HAProxy with the same links in a map file, without a log.
//!
//! Fair: one thread, no keep-alive limit, the same path, target and header fields, the same certificate.
//! Unfair to Holdfast: HAProxy writes nothing down; with its syslog it costs about twice as much.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::campaign::{Campaign, PREFIX};
use crate::failure::{Failure, Result};
use crate::process::{Cores, Running, installed};

/// HAProxy in a folder of its own.
pub(crate) struct Haproxy {
    folder: PathBuf,
}

impl Haproxy {
    pub(crate) fn is_installed() -> bool {
        installed("haproxy")
    }

    pub(crate) fn prepare(folder: &Path, campaign: &Campaign, address: SocketAddr) -> Result<Self> {
        Self::prepare_with(folder, campaign, address, None)
    }

    /// The same that also answers over TLS at an address, with the certificate of a folder.
    pub(crate) fn prepare_secured(
        folder: &Path,
        campaign: &Campaign,
        address: SocketAddr,
        secured: (SocketAddr, &Path),
    ) -> Result<Self> {
        Self::prepare_with(folder, campaign, address, Some(secured))
    }

    fn prepare_with(
        folder: &Path,
        campaign: &Campaign,
        address: SocketAddr,
        secured: Option<(SocketAddr, &Path)>,
    ) -> Result<Self> {
        let write = || -> io::Result<PathBuf> {
            fs::create_dir_all(folder)?;
            let folder = folder.canonicalize()?;
            let mut links = BufWriter::new(File::create(folder.join("links.map"))?);
            for i in 0..campaign.links {
                writeln!(links, "{} {}", Campaign::path(i), campaign.target(i))?;
            }
            links.flush()?;
            let mut tls = String::new();
            if let Some((secured, certs)) = secured {
                let both = [fs::read(certs.join("chain.pem"))?, fs::read(certs.join("key.pem"))?].concat();
                fs::write(folder.join("both.pem"), both)?;
                tls = format!("bind {secured} backlog 4096 ssl crt {}/both.pem", folder.display());
            }
            fs::write(folder.join("haproxy.cfg"), configuration(&folder, address, &tls))?;
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

fn configuration(folder: &Path, address: SocketAddr, tls: &str) -> String {
    format!(
        "\
global
    nbthread 1
    maxconn 16384
    no strict-limits
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode http
    timeout connect 10s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
frontend click
    bind {address} backlog 4096
    {tls}
    http-request return status 404 unless {{ path_beg {PREFIX} }}
    http-request set-var(txn.target) path,map_str({links})
    http-request return status 404 unless {{ var(txn.target) -m found }}
    http-after-response set-header Cache-Control no-store
    http-after-response set-header X-Robots-Tag noindex
    http-request redirect location %[var(txn.target)] code 302
",
        links = folder.join("links.map").display(),
    )
}
