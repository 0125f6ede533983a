//! Debian's Pebble, an authority for tests, with its DNS server: on ports of its own, ended with the test.
//!
//! It takes no pauses, refuses some nonces as it always does, and checks every name anew.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

use crate::cluster::Port;
use crate::edge::wait_for;
use crate::tls::{Authority, trusting};

/// An authority that checks names on two ports of this machine.
pub struct Pebble {
    folder: TempDir,
    directory: Port,
    management: Port,
    dns: Port,
    dns_management: Port,
    /// Where an edge answers it without and with TLS.
    pub http: Port,
    pub https: Port,
    process: Option<Child>,
    names: Option<Child>,
}

impl Pebble {
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// One with these settings more, in JSON.
    pub fn start_with(settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("scratch folder");
        let authority = Authority::new();
        let pair = authority.issue(&["localhost"]);
        for (name, text) in [("root.pem", &authority.pem), ("chain.pem", &pair.chain), ("key.pem", &pair.key)]
        {
            fs::write(folder.path().join(name), text).expect(name);
        }
        let [directory, management, dns, dns_management, http, https] = [(); 6].map(|()| Port::free());
        let mut pebble = Self {
            folder,
            directory,
            management,
            dns,
            dns_management,
            http,
            https,
            process: None,
            names: None,
        };
        let config = format!(
            r#"{{"pebble": {{{settings} "listenAddress": "127.0.0.1:{}", "managementListenAddress": "127.0.0.1:{}",
            "certificate": "{}", "privateKey": "{}", "httpPort": {}, "tlsPort": {}, "ocspResponderURL": ""}}}}"#,
            pebble.directory.number,
            pebble.management.number,
            pebble.path("chain.pem").display(),
            pebble.path("key.pem").display(),
            pebble.http.number,
            pebble.https.number,
        );
        fs::write(pebble.path("pebble.json"), config).expect("configuration");
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""]);
        names.arg("-dns01").arg(format!("127.0.0.1:{}", pebble.dns.number));
        names.arg("-management").arg(format!("127.0.0.1:{}", pebble.dns_management.number));
        names.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        pebble.names = Some(names.spawn().expect("pebble-challtestsrv is installed"));
        reached(&pebble.dns_management);
        pebble.again();
        pebble
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts it, after [`Self::kill`] without all that it knew.
    pub fn again(&mut self) {
        let log = File::options().create(true).append(true).open(self.path("pebble.log")).expect("log");
        let mut command = Command::new("pebble");
        command.arg("-config").arg(self.path("pebble.json"));
        command.arg("-dnsserver").arg(format!("127.0.0.1:{}", self.dns.number));
        command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log);
        self.process = Some(command.spawn().expect("pebble is installed"));
        reached(&self.directory);
        reached(&self.management);
    }

    pub fn kill(&mut self) {
        self.process.take().into_iter().for_each(end);
    }

    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.directory.number)
    }

    /// Who signed the directory's certificate.
    pub fn root(&self) -> PathBuf {
        self.path("root.pem")
    }

    /// How many certificates it has issued.
    pub fn issued(&self) -> usize {
        let log = fs::read_to_string(self.path("pebble.log")).expect("log");
        log.lines().filter(|line| line.contains("Issued certificate serial")).count()
    }

    /// A client that trusts what it issues, and nothing else.
    pub fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let pem = fs::read(self.issuer()).expect("the issuer's root");
        roots.add(CertificateDer::from_pem_slice(&pem).expect("PEM")).expect("a root");
        trusting(roots)
    }

    /// The root of what it issues, as a file.
    pub fn issuer(&self) -> PathBuf {
        let file = self.path("issuer.pem");
        if !file.exists() {
            let address = format!("https://localhost:{}/roots/0", self.management.number);
            curl(&self.root(), &["--output", &file.display().to_string(), &address]);
        }
        file
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.kill();
        self.names.take().into_iter().for_each(end);
    }
}

fn end(mut process: Child) {
    let _ = process.kill();
    let _ = process.wait();
}

fn reached(port: &Port) {
    wait_for("a server of the authority", || {
        std::net::TcpStream::connect(("127.0.0.1", port.number)).is_ok().then_some(())
    });
}

fn curl(root: &Path, arguments: &[&str]) {
    let done = Command::new("curl")
        .args(["-sS", "--fail", "--max-time", "30", "--cacert"])
        .arg(root)
        .args(arguments)
        .output()
        .expect("curl runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
