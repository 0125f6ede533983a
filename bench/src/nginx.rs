//! Debian's nginx with the same links in a `map` and a buffered access log.
//!
//! Fair: one worker, no keep-alive limit, the same path, target and header fields.
//! Unfair to nginx: it adds a short HTML body to a redirect. Unfair to Holdfast: a buffered log line is
//! lost when the machine or the process dies, a journalled hit is not.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::campaign::{Campaign, PREFIX};
use crate::failure::{Failure, Result};
use crate::peer::{fill, make_folder, write_links};
use crate::process::{Cores, Running, installed};

/// nginx in a folder of its own.
pub(crate) struct Nginx {
    folder: PathBuf,
}

impl Nginx {
    pub(crate) fn is_installed() -> bool {
        installed("nginx")
    }

    pub(crate) fn prepare(folder: &Path, campaign: &Campaign, address: SocketAddr) -> Result<Self> {
        Self::prepare_with(folder, campaign, address, "")
    }

    /// The same that also answers over TLS at an address, with the certificate of a folder.
    pub(crate) fn prepare_secured(
        folder: &Path,
        campaign: &Campaign,
        address: SocketAddr,
        (secured, certs): (SocketAddr, &Path),
    ) -> Result<Self> {
        let certs = certs.display();
        let tls = format!(
            "listen {secured} ssl backlog=4096;
        ssl_certificate {certs}/chain.pem;
        ssl_certificate_key {certs}/key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache off;
        ssl_session_tickets on;"
        );
        Self::prepare_with(folder, campaign, address, &tls)
    }

    fn prepare_with(folder: &Path, campaign: &Campaign, address: SocketAddr, tls: &str) -> Result<Self> {
        let buckets = (campaign.links * 2).next_power_of_two().max(2048);
        let write = || -> io::Result<PathBuf> {
            let folder = make_folder(folder)?;
            write_links(&folder.join("links.map"), campaign, "", ";")?;
            let words = [
                ("ADDRESS", address.to_string()),
                ("BUCKETS", buckets.to_string()),
                ("PREFIX", PREFIX.to_owned()),
                ("TLS", tls.to_owned()),
            ];
            let configuration = fill(include_str!("../peers/nginx.conf"), &words);
            fs::write(folder.join("nginx.conf"), configuration)?;
            Ok(folder)
        };
        let folder = write().map_err(Failure::at("cannot prepare nginx"))?;
        Ok(Self { folder })
    }

    pub(crate) fn start(&self, cores: Cores) -> Result<Running> {
        start(&self.folder, cores)
    }
}

/// Starts nginx with the `nginx.conf` of a folder, which its relative paths start from.
pub(crate) fn start(folder: &Path, cores: Cores) -> Result<Running> {
    let mut command = Command::new("nginx");
    command.args(["-e", "error.log", "-c"]).arg(folder.join("nginx.conf")).arg("-p").arg(folder);
    Running::start(&mut command, cores)
}
