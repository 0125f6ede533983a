//! Debian's nginx with the same links in a `map` and a buffered access log.
//!
//! Fair: one worker, no keep-alive limit, the same path, target and header fields.
//! Unfair to nginx: it adds a short HTML body to a redirect. Unfair to Holdfast: a buffered log line is
//! lost when the machine or the process dies, a journalled hit is not.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::campaign::{Campaign, PREFIX};
use crate::failure::{Failure, Result};
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
        let write = || -> io::Result<PathBuf> {
            fs::create_dir_all(folder)?;
            // nginx takes a relative prefix for one below its compiled-in one.
            let folder = folder.canonicalize()?;
            let mut links = BufWriter::new(File::create(folder.join("links.map"))?);
            for i in 0..campaign.links {
                writeln!(links, "{} {};", Campaign::path(i), campaign.target(i))?;
            }
            links.flush()?;
            fs::write(folder.join("nginx.conf"), configuration(campaign, address, tls))?;
            Ok(folder)
        };
        let folder = write().map_err(Failure::at("cannot prepare nginx"))?;
        Ok(Self { folder })
    }

    pub(crate) fn start(&self, cores: Cores) -> Result<Running> {
        let mut command = Command::new("nginx");
        command
            .args(["-e", "error.log", "-c"])
            .arg(self.folder.join("nginx.conf"))
            .arg("-p")
            .arg(&self.folder);
        Running::start(&mut command, cores)
    }
}

fn configuration(campaign: &Campaign, address: SocketAddr, tls: &str) -> String {
    let buckets = (campaign.links * 2).next_power_of_two().max(2048);
    format!(
        "\
daemon off;
worker_processes 1;
user root root; # the scratch folder belongs to who runs the bench
pid nginx.pid;
events {{ worker_connections 16384; multi_accept on; }}
http {{
    access_log access.log combined buffer=64k flush=1s;
    keepalive_requests 1000000000;
    server_tokens off;
    map_hash_max_size {buckets};
    map_hash_bucket_size 256;
    map $uri $target {{ default \"\"; include links.map; }}
    server {{
        listen {address} backlog=4096;
        {tls}
        location {PREFIX} {{
            if ($target = \"\") {{ return 404; }}
            add_header Cache-Control no-store;
            add_header X-Robots-Tag noindex;
            return 302 $target;
        }}
    }}
}}
"
    )
}
