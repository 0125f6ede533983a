//! Debian's Pebble with its DNS server, on free ports, ended with the test.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use certs::Roots;
use certs::acme::Authority;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use crate::https;

/// How Pebble is set up.
#[derive(Clone, Default)]
pub(crate) struct Setup {
    /// What it reads of its environment, besides what makes it quick and kind.
    pub(crate) environment: Vec<(&'static str, &'static str)>,
    /// Identifier and key of an account binding, which is then required.
    pub(crate) binding: Option<(&'static str, &'static str)>,
}

pub(crate) struct Pebble {
    setup: Setup,
    folder: PathBuf,
    ports: Ports,
    process: Child,
    dns: Child,
    roots: PathBuf,
}

#[derive(Clone, Copy)]
struct Ports {
    directory: u16,
    management: u16,
    dns: u16,
    dns_management: u16,
}

impl Pebble {
    /// Starts it so that it looks for proofs on these ports of this machine, whatever the name.
    pub(crate) fn start(folder: &Path, http: u16, tls: u16, setup: Setup) -> Self {
        let files = https::files(folder);
        // A port that was free a moment ago may be taken: then others are tried.
        for _ in 0..10 {
            let [directory, management, dns, dns_management] = free();
            let ports = Ports { directory, management, dns, dns_management };
            let binding = setup.binding.map_or(String::new(), |(id, key)| {
                format!(r#""externalAccountBindingRequired": true, "externalAccountMACKeys": {{"{id}": "{key}"}},"#)
            });
            let config = format!(
                r#"{{"pebble": {{"listenAddress": "127.0.0.1:{directory}",
                "managementListenAddress": "127.0.0.1:{management}",
                "certificate": "{}", "privateKey": "{}", {binding}
                "httpPort": {http}, "tlsPort": {tls}, "ocspResponderURL": ""}}}}"#,
                files.chain.display(),
                files.key.display()
            );
            fs::write(folder.join("pebble.json"), config).unwrap();
            let mut dns_server = serve_names(ports);
            if !reached(&mut dns_server, dns_management) {
                end(&mut dns_server);
                continue;
            }
            let mut process = run(folder, ports, &setup);
            if reached(&mut process, directory) && reached(&mut process, management) {
                let (folder, roots) = (folder.to_owned(), files.root);
                return Self { setup, folder, ports, process, dns: dns_server, roots };
            }
            end(&mut process);
            end(&mut dns_server);
        }
        panic!("pebble does not start");
    }

    pub(crate) fn authority(&self) -> Authority {
        let mut authority = Authority::at(format!("https://localhost:{}/dir", self.ports.directory));
        authority.roots = Roots::File(self.roots.clone());
        authority
    }

    /// Ends it; it forgets everything with that.
    pub(crate) fn kill(&mut self) {
        end(&mut self.process);
    }

    /// Starts it again on the same ports.
    pub(crate) fn again(&mut self) {
        self.process = run(&self.folder, self.ports, &self.setup);
        assert!(reached(&mut self.process, self.ports.directory), "pebble does not come back");
        assert!(reached(&mut self.process, self.ports.management), "pebble does not come back");
    }

    /// Lets a name point to an address where nobody listens.
    pub(crate) fn point_elsewhere(&self, name: &str) {
        let body = format!(r#"{{"host":"{name}","addresses":["127.0.0.2"]}}"#);
        let address = format!("http://127.0.0.1:{}/add-a", self.ports.dns_management);
        curl(&["--data", &body, &address]);
    }

    /// Lets it point here again.
    pub(crate) fn point_here(&self, name: &str) {
        let address = format!("http://127.0.0.1:{}/clear-a", self.ports.dns_management);
        curl(&["--data", &format!(r#"{{"host":"{name}"}}"#), &address]);
    }

    /// What a browser would trust if this were no test.
    pub(crate) fn trust(&self) -> RootCertStore {
        let root = self.roots.display().to_string();
        let address = format!("https://localhost:{}/roots/0", self.ports.management);
        let pem = curl(&["--cacert", &root, &address]);
        let mut store = RootCertStore::empty();
        store.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        store
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        end(&mut self.process);
        end(&mut self.dns);
    }
}

fn run(folder: &Path, ports: Ports, setup: &Setup) -> Child {
    let log = fs::File::options().create(true).append(true).open(folder.join("pebble.log")).unwrap();
    let mut command = Command::new("pebble");
    command.arg("-config").arg(folder.join("pebble.json"));
    command.arg("-dnsserver").arg(format!("127.0.0.1:{}", ports.dns));
    command.env("PEBBLE_WFE_NONCEREJECT", "0").env("PEBBLE_AUTHZREUSE", "0");
    if !setup.environment.iter().any(|(key, _)| *key == "PEBBLE_VA_SLEEPTIME") {
        command.env("PEBBLE_VA_NOSLEEP", "1");
    }
    command.envs(setup.environment.iter().copied());
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().expect("pebble is installed")
}

/// Every name is at 127.0.0.1 unless it is told otherwise.
fn serve_names(ports: Ports) -> Child {
    let mut command = Command::new("pebble-challtestsrv");
    command.args(["-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""]);
    command.arg("-dns01").arg(format!("127.0.0.1:{}", ports.dns));
    command.arg("-management").arg(format!("127.0.0.1:{}", ports.dns_management));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("pebble-challtestsrv is installed")
}

/// Whether the process listens before it ends.
#[expect(clippy::disallowed_methods, reason = "a test's own bound")]
fn reached(process: &mut Child, port: u16) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(30) {
        if std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return process.try_wait().unwrap().is_none();
        }
        if process.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::yield_now();
    }
    false
}

fn end(process: &mut Child) {
    let _ = process.kill();
    let _ = process.wait();
}

fn free<const COUNT: usize>() -> [u16; COUNT] {
    let listeners = [(); COUNT].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn curl(arguments: &[&str]) -> String {
    let output =
        Command::new("curl").args(["-sS", "--fail", "--max-time", "30"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
