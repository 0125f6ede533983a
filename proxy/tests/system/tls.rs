//! HTTPS with real clients: which certificate whom is shown, what is refused, what survives a reload.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use crate::edge::{Answer, Client, Edge, PATIENCE, SITE, configuration, get, raw, wait_for};
use crate::load::{Ledger, Load, Manner, assert_exactly_once, wait_delivered};

const LINKS: &str = "namespace,token,url\none,a,https://example.com/a\ntwo,a,https://example.com/two\n";

/// A second site, for what must not be mixed with the first.
const OTHER_SITE: &str = r#"
[[site]]
name = "other"
hosts = ["other.test"]
namespace = "two"
[[site.route]]
path = "/c/{token}"
kind = "click"
"#;

/// A private authority, which everything here trusts.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pub pem: String,
}

#[derive(Clone)]
pub struct Pair {
    pub chain: String,
    pub key: String,
}

impl Pair {
    pub fn bundle(&self) -> String {
        format!("{}{}", self.chain, self.key)
    }
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test authority");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Self { issuer: Issuer::new(params, key), der, pem }
    }

    pub fn issue(&self, names: &[&str]) -> Pair {
        self.issue_with(names, &KeyPair::generate().unwrap(), (2020, 2090))
    }

    /// For the years from the first to the second.
    pub fn issue_between(&self, names: &[&str], years: (i32, i32)) -> Pair {
        self.issue_with(names, &KeyPair::generate().unwrap(), years)
    }

    fn issue_with(&self, names: &[&str], key: &KeyPair, (from, until): (i32, i32)) -> Pair {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "shop");
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
        let chain = params.signed_by(key, &self.issuer).unwrap().pem();
        Pair { chain, key: key.serialize_pem() }
    }

    /// A client that trusts it; each has a memory for tickets of its own.
    fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        trusting(roots)
    }
}

/// A client that trusts these, with a memory for tickets of its own.
pub fn trusting(roots: RootCertStore) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn openssl_key(arguments: &[&str]) -> KeyPair {
    let made = Command::new("openssl").arg("genpkey").args(arguments).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    KeyPair::from_pem(&String::from_utf8(made.stdout).unwrap()).unwrap()
}

pub type Secure = StreamOwned<ClientConnection, TcpStream>;

pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<Secure> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(connection, stream))
}

/// An edge with certificates in `certs`, and the authority that signed them.
struct Subject {
    edge: Edge,
    authority: Authority,
}

impl Subject {
    /// Files are written before the edge starts; `tls` goes into `[tls]`, `sites` below it.
    fn new(files: impl FnOnce(&Authority) -> Vec<(&'static str, String)>, tls: &str, sites: &str) -> Self {
        Self::configured(files, &secured(tls, sites))
    }

    fn configured(files: impl FnOnce(&Authority) -> Vec<(&'static str, String)>, config: &str) -> Self {
        let authority = Authority::new();
        let mut subject = Self { edge: prepared(config), authority };
        for (file, content) in files(&subject.authority) {
            subject.write(file, &content);
        }
        subject.edge.start();
        subject
    }

    /// One certificate for the hosts of the first site.
    fn plain() -> Self {
        Self::new(shop, "", SITE)
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.edge.path("certs").join(name)
    }

    fn write(&self, file: &str, content: &str) {
        fs::write(self.file(file), content).unwrap();
    }

    fn get(&self, name: &str, host: &str, path: &str) -> Answer {
        Client::over(connect(self.edge.https, &self.authority.client(), name).unwrap())
            .get(host, path)
            .unwrap_or_else(|error| panic!("{host}{path}: {error}\n{}", self.edge.log()))
    }

    /// The first certificate that a client is shown, or how its handshake ends.
    fn shown(&self, name: &str) -> Result<CertificateDer<'static>, String> {
        let stream = connect(self.edge.https, &self.authority.client(), name).map_err(|e| e.to_string())?;
        Ok(stream.conn.peer_certificates().unwrap()[0].clone().into_owned())
    }

    /// Waits until `name` is shown the certificate of `pair`.
    fn wait_shown(&self, name: &str, pair: &Pair) {
        let der = der(pair);
        wait_for("a certificate", || (self.shown(name).as_ref() == Ok(&der)).then_some(()));
    }

    /// What `openssl s_client` says with these arguments.
    fn s_client(&self, arguments: &[&str]) -> String {
        let authority = self.edge.path("authority.pem");
        fs::write(&authority, &self.authority.pem).unwrap();
        let said = Command::new("openssl")
            .args(["s_client", "-connect", &self.edge.https.to_string(), "-CAfile"])
            .arg(&authority)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr))
    }

    fn curl(&self, host: &str, arguments: &[&str], path: &str) -> String {
        let authority = self.edge.path("authority.pem");
        fs::write(&authority, &self.authority.pem).unwrap();
        let port = self.edge.https.port();
        let said = Command::new("curl")
            .args(["-sS", "--max-time", "20", "--cacert"])
            .arg(&authority)
            .args(["--resolve", &format!("{host}:{port}:127.0.0.1")])
            .args(arguments)
            .arg(format!("https://{host}:{port}{path}"))
            .output()
            .unwrap();
        assert!(
            said.status.success(),
            "curl: {}\n{}",
            String::from_utf8_lossy(&said.stderr),
            self.edge.log()
        );
        String::from_utf8_lossy(&said.stdout).into_owned()
    }

    fn handshakes(&self, labels: &str) -> f64 {
        self.edge.metric("holdfast_tls_handshakes_total", labels)
    }
}

fn der(pair: &Pair) -> CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(pair.chain.as_bytes()).unwrap()
}

fn secured(tls: &str, sites: &str) -> String {
    configuration(&format!("[tls]\npoll = \"100ms\"\n{tls}\n{sites}"))
        .replace("threads = 2", "threads = 2\nhttps = [\"127.0.0.1:0\"]")
}

/// A folder with everything but certificates.
fn prepared(config: &str) -> Edge {
    let folder = tempfile::tempdir().unwrap();
    for name in ["data", "certs"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("holdfast.toml"), config).unwrap();
    let edge = Edge::in_folder(folder);
    edge.import(LINKS);
    edge
}

fn shop(authority: &Authority) -> Vec<(&'static str, String)> {
    vec![("shop.pem", authority.issue(&["click.test", "*.wild.test"]).bundle())]
}

#[test]
fn names_are_answered_exactly_by_wildcard_or_not_at_all() {
    let subject = Subject::plain();
    for host in ["click.test", "a.wild.test", "CLICK.test"] {
        let answer = subject.get(host, host, "/c/a");
        assert_eq!((answer.status, answer.header("location")), (302, Some("https://example.com/a")));
    }
    for name in ["a.b.wild.test", "wild.test", "unknown.test"] {
        let refused = subject.shown(name).unwrap_err();
        assert!(refused.contains("UnrecognisedName"), "{name}: {refused}");
    }
    // An address is no name, and no name is asked for then.
    assert!(subject.shown("127.0.0.1").unwrap_err().contains("UnrecognisedName"));
    let said = subject.s_client(&["-noservername"]);
    assert!(said.contains("unrecognized name"), "{said}");
    assert!(!said.contains("BEGIN CERTIFICATE"), "nothing is shown: {said}");
    assert_eq!(subject.handshakes("outcome=\"unknown_name\""), 5.0);
    assert_eq!(subject.handshakes("outcome=\"done\""), 3.0);
}

#[test]
fn a_default_is_shown_to_clients_without_a_known_name() {
    let subject = Subject::new(shop, "default = \"click.test\"", SITE);
    let said = subject.s_client(&["-noservername", "-verify_hostname", "click.test"]);
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    // An address is no server name (RFC 6066, section 3), though some clients send one.
    let said = subject.s_client(&["-servername", "127.0.0.1", "-verify_hostname", "click.test"]);
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    // Its Host is a host of the default's site, as it is without TLS.
    let answer = subject.curl("click.test", &["-w", "%{http_code}", "-o", "/dev/null"], "/c/a");
    assert_eq!(answer, "302");
}

#[test]
fn versions_older_than_tls_1_2_are_refused_and_nothing_weak_is_offered() {
    let subject = Subject::plain();
    for (version, expected) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        let said = subject.s_client(&["-servername", "click.test", version]);
        assert!(said.contains(&format!("New, {expected}, Cipher is")), "{said}");
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        assert!(said.contains("Compression: NONE"), "{said}");
    }
    let said = subject.s_client(&["-servername", "click.test", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]);
    assert!(said.contains("alert handshake failure") || said.contains("alert protocol version"), "{said}");
    assert!(said.contains("Cipher is (NONE)"), "{said}");
    assert!(subject.handshakes("outcome=\"incompatible\"") >= 1.0, "{}", subject.edge.metrics());
    // 0-RTT: a replayed click would count twice.
    let said = subject.s_client(&["-servername", "click.test", "-tls1_3"]);
    assert!(!said.contains("Max Early Data: 1"), "{said}");

    let said = Command::new("sslscan")
        .args(["--no-colour", "--sni-name=click.test", &subject.edge.https.to_string()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&said.stdout);
    for line in [
        "SSLv2     disabled",
        "SSLv3     disabled",
        "TLSv1.0   disabled",
        "TLSv1.1   disabled",
        "TLSv1.2   enabled",
        "TLSv1.3   enabled",
        "Session renegotiation not supported",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    assert!(said.contains("not vulnerable to heartbleed"), "{said}");
    let ciphers: Vec<&str> =
        said.lines().filter(|line| line.starts_with("Accepted") || line.starts_with("Preferred")).collect();
    assert!(!ciphers.is_empty(), "{said}");
    for cipher in ciphers {
        let is_sound = cipher.contains("TLS_") || cipher.contains("ECDHE-");
        let is_aead = cipher.contains("GCM") || cipher.contains("POLY1305");
        assert!(is_sound && is_aead, "{cipher}");
    }
    // Ours is the order.
    for preferred in
        ["TLSv1.3  128 bits  TLS_AES_128_GCM_SHA256", "TLSv1.2  128 bits  ECDHE-ECDSA-AES128-GCM-SHA256"]
    {
        assert!(said.contains(&format!("Preferred {preferred}")), "{said}");
    }
}

/// What testssl.sh finds of every certificate that a test makes: of an authority without revocation lists, for
/// longer than a public one would issue it, or ending soon.
const FINDINGS_OF_A_TEST: [&str; 5] =
    ["cert_revocation", "cert_validityPeriod", "cert_extlifeSpan", "cert_expirationStatus", "cert_notAfter"];

#[test]
#[ignore = "takes minutes, and a package that no other test needs: `make soak` runs it"]
fn testssl_finds_nothing_above_low() {
    let subject = Subject::plain();
    let (root, found) = (subject.edge.path("root.pem"), subject.edge.path("testssl.json"));
    fs::write(&root, &subject.authority.pem).unwrap();
    let said = Command::new("testssl")
        .args(["--quiet", "--color", "0", "--warnings", "batch", "--ip", "127.0.0.1"])
        .arg("--add-ca")
        .arg(&root)
        .arg("--jsonfile")
        .arg(&found)
        .arg(format!("click.test:{}", subject.edge.https.port()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&said.stdout);
    let found: Vec<serde_json::Value> =
        serde_json::from_slice(&fs::read(&found).expect("testssl.sh wrote no findings")).unwrap();
    let has = |id: &str| found.iter().any(|finding| finding["id"] == id);
    assert!(found.len() > 100 && has("TLS1_3") && has("heartbleed") && has("cipher_order"), "{said}");
    let is_above = |finding: &&serde_json::Value| {
        let severity = finding["severity"].as_str().unwrap_or_default();
        let id = finding["id"].as_str().unwrap_or_default();
        ["MEDIUM", "HIGH", "CRITICAL", "FATAL"].contains(&severity)
            && !FINDINGS_OF_A_TEST.iter().any(|known| id.starts_with(known))
    };
    let above: Vec<_> = found.iter().filter(is_above).collect();
    assert!(above.is_empty(), "{above:#?}");
}

#[test]
fn a_name_has_a_certificate_for_each_type_of_key_and_the_client_picks() {
    let subject = Subject::new(
        |authority| {
            let rsa = openssl_key(&["-algorithm", "RSA", "-quiet"]);
            let ed25519 = openssl_key(&["-algorithm", "ED25519"]);
            vec![
                ("ecdsa.pem", authority.issue(&["click.test"]).bundle()),
                ("rsa.pem", authority.issue_with(&["click.test"], &rsa, (2020, 2090)).bundle()),
                ("ed25519.pem", authority.issue_with(&["click.test"], &ed25519, (2020, 2090)).bundle()),
            ]
        },
        "",
        SITE,
    );
    for (signatures, expected) in [
        ("ECDSA+SHA256:RSA-PSS+SHA256:ed25519", "ECDSA"),
        ("RSA-PSS+SHA256", "RSA-PSS"),
        ("ed25519", "ed25519"),
    ] {
        for version in ["-tls1_2", "-tls1_3"] {
            let said = subject.s_client(&["-servername", "click.test", version, "-sigalgs", signatures]);
            let line = format!("Peer signature type: {expected}");
            assert!(said.contains(&line), "{signatures} {version}: {said}");
        }
    }
    let listed = subject.edge.tell(&["certs", "list"]);
    for word in ["ECDSA", "Ed25519", "RSA", "ecdsa.pem", "click.test"] {
        assert!(listed.contains(word), "{listed}");
    }
    let listed: serde_json::Value =
        serde_json::from_str(&subject.edge.tell(&["certs", "list", "--json"])).unwrap();
    assert_eq!(listed["certificates"].as_array().unwrap().len(), 3);
    assert!(listed["faults"].as_array().unwrap().is_empty());
}

#[test]
fn hits_are_answered_over_http_2_and_http_1_1() {
    let subject = Subject::plain();
    for (version, said) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let show = ["-w", "%{http_version} %{http_code} %{redirect_url}", "-o", "/dev/null", version];
        assert_eq!(subject.curl("click.test", &show, "/c/a"), format!("{said} 302 https://example.com/a"));
        let head = subject.curl("click.test", &["-I", version], "/c/a");
        assert!(
            head.contains(" 302") && head.to_lowercase().contains("location: https://example.com/a"),
            "{head}"
        );
        let show = ["-w", "%{http_code} %{content_type} %{size_download}", "-o", "/dev/null", version];
        assert_eq!(subject.curl("click.test", &show, "/o/unknown"), "200 image/gif 43");
        let show = ["-w", "%{http_code}", "-o", "/dev/null", version, "-d", "a=b"];
        assert_eq!(subject.curl("click.test", &show, "/c/a"), "405");
    }
    let address = subject.edge.https.to_string();
    let said = Command::new("h2load")
        .args(["-n", "2000", "-c", "8", "-m", "10", "--connect-to", &address])
        .arg(format!("https://click.test:{}/c/a", subject.edge.https.port()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&said.stdout);
    assert!(
        said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"),
        "{said}\n{}",
        subject.edge.log()
    );
    assert!(said.contains("0 2xx, 2000 3xx"), "{said}");
    subject.edge.wait_count("select count(*) from hits where kind = 'click' and method = 'GET'", 2002);
    subject.edge.wait_count("select count(*) from hits where method = 'HEAD'", 2);
}

#[test]
fn a_host_of_another_site_than_the_connections_is_misdirected() {
    let subject = Subject::new(
        |authority| vec![("all.pem", authority.issue(&["click.test", "a.wild.test", "other.test"]).bundle())],
        "",
        &format!("{SITE}{OTHER_SITE}"),
    );
    assert_eq!(subject.get("click.test", "a.wild.test", "/c/a").status, 302, "of the same site");
    assert_eq!(subject.get("click.test", "click.test:443", "/c/a").status, 302);
    assert_eq!(subject.get("click.test", "other.test", "/c/a").status, 421);
    assert_eq!(subject.get("other.test", "click.test", "/c/a").status, 421);
    let answer = subject.get("other.test", "other.test", "/c/a");
    assert_eq!(answer.header("location"), Some("https://example.com/two"));
    let show = ["--http2", "-w", "%{http_code}", "-o", "/dev/null", "-H", "Host: other.test"];
    assert_eq!(subject.curl("click.test", &show, "/c/a"), "421");
    assert_eq!(subject.edge.metric("holdfast_refused_total", "other_site"), 3.0);
}

#[test]
fn clients_resume_across_a_reload_and_at_another_edge_with_the_same_secret() {
    let secret = "tickets_file = \"secret\"";
    let files = |authority: &Authority| shop(authority);
    let authority = Authority::new();
    let edges: Vec<Edge> = (0..2)
        .map(|_| {
            let mut edge = prepared(&secured(secret, SITE).replace(secret, ""));
            fs::write(edge.path("secret"), "a secret of thirty-two bytes at least").unwrap();
            fs::write(edge.path("holdfast.toml"), secured(secret, SITE)).unwrap();
            for (file, content) in files(&authority) {
                fs::write(edge.path("certs").join(file), content).unwrap();
            }
            edge.start();
            edge
        })
        .collect();
    let client = authority.client();
    let visit = |edge: &Edge| {
        let mut stream = connect(edge.https, &client, "click.test").unwrap();
        // The ticket comes behind the handshake; an answer comes behind the ticket.
        stream.write_all(b"GET /c/a HTTP/1.1\r\nHost: click.test\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.starts_with(b"HTTP/1.1 302"), "{}", String::from_utf8_lossy(&answer));
        stream.conn.handshake_kind()
    };
    assert_eq!(visit(&edges[0]), Some(HandshakeKind::Full));
    assert_eq!(visit(&edges[0]), Some(HandshakeKind::Resumed));
    assert_eq!(visit(&edges[1]), Some(HandshakeKind::Resumed), "another edge with the same secret");
    fs::write(edges[0].path("certs").join("shop.pem"), shop(&authority)[0].1.as_bytes()).unwrap();
    edges[0].tell(&["reload"]);
    assert_eq!(visit(&edges[0]), Some(HandshakeKind::Resumed), "after a reload");
    assert_eq!(edges[0].metric("holdfast_tls_handshakes_total", "resumed=\"yes\""), 2.0);

    // A ticket is good under the name that it was given for, no other.
    let said = |name: &str, file: &str, argument: &str| {
        let file = edges[0].path(file);
        let said = Command::new("openssl")
            .args([
                "s_client",
                "-connect",
                &edges[0].https.to_string(),
                "-tls1_2",
                "-servername",
                name,
                argument,
            ])
            .arg(&file)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8_lossy(&said.stdout).into_owned()
    };
    assert!(said("click.test", "session", "-sess_out").contains("New, TLSv1.2"));
    assert!(said("click.test", "session", "-sess_in").contains("Reused, TLSv1.2"));
    assert!(said("a.wild.test", "session", "-sess_in").contains("New, TLSv1.2"));

    fs::write(edges[0].path("secret"), "another secret of thirty-two bytes at least").unwrap();
    edges[0].tell(&["reload"]);
    assert_eq!(visit(&edges[0]), Some(HandshakeKind::Full), "the secret was changed");
}

#[test]
fn only_a_better_pair_replaces_one() {
    let subject = Subject::plain();
    let authority = &subject.authority;
    let key = || KeyPair::generate().unwrap();
    let names = ["click.test", "*.wild.test"];
    let served = authority.issue_with(&names, &key(), (2021, 2080));
    subject.write("shop.pem", &served.bundle());
    subject.wait_shown("click.test", &served);

    let other = authority.issue(&names);
    let encrypted = {
        fs::write(subject.edge.path("key.pem"), &other.key).unwrap();
        let made = Command::new("openssl")
            .args(["pkcs8", "-topk8", "-v2", "aes256", "-passout", "pass:secret", "-in"])
            .arg(subject.edge.path("key.pem"))
            .output()
            .unwrap();
        String::from_utf8(made.stdout).unwrap()
    };
    assert!(encrypted.contains("ENCRYPTED"), "{encrypted}");
    let bundle = other.bundle();
    for (what, content, said) in [
        ("another key", format!("{}{}", other.chain, served.key), "no key in the folder"),
        ("half of it", bundle[..bundle.len() / 2].to_owned(), "half written"),
        ("nothing", String::new(), "neither a certificate nor"),
        ("an encrypted key", format!("{}{encrypted}", other.chain), "encrypted"),
        ("10 MB", format!("{bundle}{}", "#".repeat(10_000_000)), "longer than"),
        ("an old one", authority.issue_with(&names, &key(), (2019, 2090)).bundle(), "issued before"),
        ("an ended one", authority.issue_with(&names, &key(), (2022, 2023)).bundle(), "not now"),
        ("one to come", authority.issue_with(&names, &key(), (2089, 2090)).bundle(), "not now"),
    ] {
        subject.write("shop.pem", &content);
        wait_for(what, || {
            let listed = subject.edge.tell(&["certs", "list"]);
            (listed.contains(said) && listed.contains("what was served before stays")).then_some(())
        });
        assert_eq!(subject.shown("click.test").unwrap(), der(&served), "{what}");
        assert!(subject.edge.metric("holdfast_certificate_faults", "") >= 1.0);
        let log = subject.edge.log();
        assert!(log.lines().any(|line| line.contains("shop.pem") && line.contains(said)), "{what}: {log}");
        assert!(!log.contains("PRIVATE KEY"), "{log}");
    }

    // By a link, as mounted secrets come, and in two files, one after the other.
    let better = authority.issue_with(&names, &key(), (2022, 2070));
    fs::write(subject.edge.path("elsewhere"), &better.chain).unwrap();
    fs::remove_file(subject.file("shop.pem")).unwrap();
    std::os::unix::fs::symlink(subject.edge.path("elsewhere"), subject.file("shop.pem")).unwrap();
    wait_for("the fault", || subject.edge.tell(&["certs", "list"]).contains("no key").then_some(()));
    assert_eq!(subject.shown("click.test").unwrap(), der(&served));
    subject.write("shop.key", &better.key);
    subject.wait_shown("click.test", &better);
    wait_for("no fault", || (subject.edge.metric("holdfast_certificate_faults", "") == 0.0).then_some(()));
    let end = subject.edge.metric("holdfast_certificate_end_timestamp_seconds", "");
    assert_eq!(end, 3_155_760_000.0, "2070-01-01");
    let status = subject.edge.tell(&["status"]);
    assert!(status.contains("certificates") && status.contains("for 2 names"), "{status}");
}

#[test]
fn a_lone_pair_with_wrong_dates_is_served_and_told_of() {
    let subject = Subject::new(
        |authority| vec![("shop.pem", authority.issue_between(&["click.test"], (2020, 2021)).bundle())],
        "",
        SITE,
    );
    let said = subject.s_client(&["-servername", "click.test"]);
    assert!(said.contains("certificate has expired"), "{said}");
    let answer = subject.curl("click.test", &["-k", "-w", "%{http_code}", "-o", "/dev/null"], "/c/a");
    assert_eq!(answer, "302");
    assert!(subject.edge.log().contains("it is served all the same"), "{}", subject.edge.log());
    assert_eq!(subject.edge.metric("holdfast_certificate_faults", ""), 1.0);
    assert!(subject.edge.tell(&["certs", "list"]).contains("OVER"));
    // A check of the domain names it, too: it once was content with any certificate.
    let checked = subject.edge.ask(&["domains", "check", "click.test", "other.test"]);
    let table = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert_eq!(checked.status.code(), Some(3), "{table}");
    let line = |host: &str| table.lines().find(|line| line.starts_with(host)).unwrap_or_default().to_owned();
    assert!(line("click.test").contains("EXPIRED") && line("other.test").contains("NONE"), "{table}");
    let checked = subject.edge.run(&["check"]);
    assert!(checked.status.success());
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(said.contains("shop.pem") && said.contains("not now"), "{said}");
}

#[test]
fn nothing_is_accepted_before_a_certificate_is_loaded() {
    let authority = Authority::new();
    let mut edge = prepared(&secured("", SITE));
    edge.launch(&[]);
    let why = wait_for("links", || {
        let answer = get(edge.admin, "localhost", "/ready").ok().filter(|answer| answer.status == 503)?;
        answer.text().contains("certificate").then(|| answer.text())
    });
    assert!(why.contains("no certificate is loaded yet"), "{why}");
    assert_eq!(edge.redirect("click.test", "/c/a"), "https://example.com/a", "without TLS it answers");
    // A client that comes too early waits and is then answered.
    let (address, client) = (edge.https, authority.client());
    std::thread::scope(|scope| {
        let early = scope.spawn(move || connect(address, &client, "click.test").map(drop));
        fs::write(edge.path("certs").join("shop.pem"), &shop(&authority)[0].1).unwrap();
        edge.wait_ready();
        early.join().unwrap().unwrap();
    });
}

#[test]
fn a_hello_in_single_bytes_and_single_byte_records_is_understood_or_refused() {
    let subject = Subject::plain();
    let hello = {
        let name = ServerName::try_from("click.test").unwrap();
        let mut connection = ClientConnection::new(subject.authority.client(), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    };
    let record = |content: &[u8]| {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[0x16, 3, 1][..], &length, content].concat()
    };
    let first_byte = |pieces: &mut dyn Iterator<Item = Vec<u8>>| {
        let mut stream = TcpStream::connect(subject.edge.https).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in pieces {
            // The other side may have had enough.
            if stream.write_all(&piece).is_err() {
                break;
            }
        }
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => Some(byte[0]),
            _ => None,
        }
    };
    assert_eq!(first_byte(&mut hello.iter().map(|&byte| vec![byte])), Some(0x16), "bytes");
    let records = hello[5..].iter().map(|byte| record(&[*byte]));
    assert!(matches!(first_byte(&mut records.into_iter()), Some(0x16 | 0x15)), "records of a byte");
    let garbage = (0..2000_u32).map(|at| vec![at.wrapping_mul(2_654_435_761) as u8 | 0x80]);
    assert!(matches!(first_byte(&mut garbage.into_iter()), Some(0x15) | None), "garbage");
    // A name of 16 KiB, in records as long as they may be.
    let name = vec![b'a'; 16 << 10];
    let extension = [
        &[0, 0][..],
        &u16::try_from(name.len() + 5).unwrap().to_be_bytes(),
        &u16::try_from(name.len() + 3).unwrap().to_be_bytes(),
        &[0],
        &u16::try_from(name.len()).unwrap().to_be_bytes(),
        &name,
    ]
    .concat();
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0, 0, 2, 0x13, 1, 1, 0],
        &u16::try_from(extension.len()).unwrap().to_be_bytes(),
        &extension,
    ]
    .concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let hello = [&[1][..], &length[1..], &body].concat();
    let mut records = hello.chunks(16 << 10).map(record);
    assert_eq!(first_byte(&mut records), Some(0x15), "a name of 16 KiB");
    assert_eq!(subject.get("click.test", "click.test", "/c/a").status, 302, "others are served");
    assert_eq!(subject.edge.metric("holdfast_panics_total", ""), 0.0);
}

#[test]
fn http_on_the_port_for_tls_is_sent_to_https_and_tls_on_the_other_ends() {
    let subject = Subject::new(shop, "public_port = 8443", SITE);
    let ask = |method: &str, host: &str| {
        raw(subject.edge.https, format!("{method} /c/a?b HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
            .unwrap()
    };
    let answer = ask("GET", "click.test");
    assert_eq!((answer.status, answer.header("location")), (308, Some("https://click.test:8443/c/a?b")));
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(ask("HEAD", "click.test").status, 308);
    assert_eq!(ask("POST", "click.test").status, 400);
    assert_eq!(ask("GET", "nobody.test").status, 421);
    assert_eq!(raw(subject.edge.https, b"GET\r\n\r\n").unwrap().status, 400);
    assert_eq!(subject.handshakes("outcome=\"plain\""), 5.0);
    assert_eq!(subject.edge.count("select count(*) from hits"), 0, "a click counts when it comes back");

    // Told in HTTP, and ended at once: a client that is left waiting fails, too, but much later.
    let mut client =
        ClientConnection::new(subject.authority.client(), ServerName::try_from("click.test").unwrap())
            .unwrap();
    let mut stream = TcpStream::connect(subject.edge.http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    client.write_tls(&mut stream).unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).expect("the connection ends");
    let said = String::from_utf8_lossy(&said);
    assert!(said.starts_with("HTTP/1.1 400 "), "{said:?}");
    assert_eq!(subject.handshakes("outcome=\"full\""), 0.0, "no handshake took place");
    assert_eq!(subject.edge.metric("holdfast_panics_total", ""), 0.0);
    assert_eq!(subject.edge.redirect("click.test", "/c/a"), "https://example.com/a");
}

#[test]
fn a_silent_client_loses_its_place_at_the_deadline_and_others_do_not_wait() {
    let subject =
        Subject::new(shop, "hello_timeout = \"1s\"\nhandshake_timeout = \"1s\"\nhandshakes_max = 4", SITE);
    let mut silent: Vec<TcpStream> =
        (0..3).map(|_| TcpStream::connect(subject.edge.https).unwrap()).collect();
    silent[1].write_all(&[0x16, 3, 1, 2]).unwrap();
    // One that says hello and then nothing.
    let name = ServerName::try_from("click.test").unwrap();
    let mut half = ClientConnection::new(subject.authority.client(), name).unwrap();
    half.write_tls(&mut silent[2]).unwrap();
    assert_eq!(subject.get("click.test", "click.test", "/c/a").status, 302, "the fourth place");
    for stream in &mut silent {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    assert_eq!(subject.handshakes("outcome=\"late_hello\""), 2.0);
    assert_eq!(subject.handshakes("outcome=\"late\""), 1.0);

    // Silence takes no place.
    let _silent: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(subject.edge.https).unwrap()).collect();
    assert_eq!(subject.get("click.test", "click.test", "/c/a").status, 302);
    assert_eq!(subject.edge.metric("holdfast_refused_total", "handshakes"), 0.0);
    let half = || {
        let name = ServerName::try_from("click.test").unwrap();
        let mut stream = TcpStream::connect(subject.edge.https).unwrap();
        ClientConnection::new(subject.authority.client(), name).unwrap().write_tls(&mut stream).unwrap();
        stream
    };
    wait_for("a refusal", || {
        let _halves: Vec<TcpStream> = (0..4).map(|_| half()).collect();
        let _ = connect(subject.edge.https, &subject.authority.client(), "click.test");
        (subject.edge.metric("holdfast_refused_total", "handshakes") >= 1.0).then_some(())
    });
}

#[test]
fn ten_thousand_certificates_are_ready_soon_and_reloaded_under_load_without_a_failed_handshake() {
    let authority = Authority::new();
    let mut edge = prepared(&secured("", SITE));
    let write = |edge: &Edge, year: i32| {
        let issue = |names: &[&str]| {
            authority.issue_with(names, &KeyPair::generate().unwrap(), (year, 2090)).bundle()
        };
        let certs = edge.path("certs");
        for at in 0..10_000 {
            // Whole files appear, as careful writers make them.
            let file = certs.join(format!("{at}.pem"));
            let hidden = certs.join(".new");
            fs::write(&hidden, issue(&[&format!("name-{at}.test")])).unwrap();
            fs::rename(hidden, file).unwrap();
        }
        fs::write(certs.join("shop.pem"), issue(&["click.test", "*.wild.test"])).unwrap();
    };
    write(&edge, 2020);
    let begun = std::time::Instant::now();
    edge.start();
    println!("ready with 10 001 certificates in {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(10), "the promise is a second, on a quiet machine");
    let count = |edge: &Edge| edge.status()["certificates"]["certificates"].as_u64();
    assert_eq!(count(&edge), Some(10_001));
    let memory = |edge: &Edge| -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", edge.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    println!("{} KiB of memory", memory(&edge));
    assert!(memory(&edge) < 200_000, "{} KiB", memory(&edge));

    let ledger = Arc::new(Ledger::default());
    let (address, client) = (edge.https, authority.client());
    let connect = Arc::new(move || connect(address, &client, "click.test").map(Client::over));
    let load = Load::through(connect, 4, Manner::Once, &ledger, "/c/a", Duration::ZERO);
    let shown = || {
        let stream = self::connect(edge.https, &authority.client(), "click.test").unwrap();
        stream.conn.peer_certificates().unwrap()[0].clone().into_owned()
    };
    let first = edge.status()["certificates"].clone();
    let first_shown = shown();
    write(&edge, 2021);
    edge.tell(&["reload"]);
    wait_for("the new certificate", || (shown() != first_shown).then_some(()));
    let before = ledger.answers();
    wait_for("answers", || (ledger.answers() > before + 200).then_some(()));
    load.stop();
    assert_eq!(ledger.failed.load(Relaxed), 0, "{}", edge.log());
    assert_eq!(edge.status()["certificates"]["certificates"], first["certificates"]);
    assert_eq!(edge.metric("holdfast_certificate_faults", ""), 0.0, "{}", edge.tell(&["certs", "list"]));
    wait_delivered(&edge, &ledger.answered());
    assert_exactly_once(&edge, &ledger);
}

/// The edge that runs serves what its files held before; one that starts has nothing else.
#[test]
fn nobody_takes_over_who_could_show_no_certificate() {
    let subject = Subject::plain();
    for file in fs::read_dir(subject.edge.path("certs")).unwrap() {
        fs::write(file.unwrap().path(), "half a fi").unwrap();
    }
    let refused = subject.edge.run(&["serve", "--takeover"]);
    assert!(!refused.status.success(), "{refused:?}");
    let said =
        String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
    assert!(said.contains("no certificate can be loaded"), "{said}");
    for _ in 0..3 {
        assert_eq!(subject.get("click.test", "click.test", "/c/a").status, 302);
        assert_eq!(subject.edge.get("click.test", "/c/a").status, 302);
    }
}

#[test]
fn a_new_program_takes_over_and_the_old_one_drains_without_a_failed_handshake() {
    let mut subject = Subject::plain();
    let ledger = Arc::new(Ledger::default());
    let (address, client) = (subject.edge.https, subject.authority.client());
    let connect = Arc::new(move || connect(address, &client, "click.test").map(Client::over));
    let kept = Load::through(connect.clone(), 3, Manner::Strict, &ledger, "/c/a", Duration::ZERO);
    let fresh = Load::through(connect, 3, Manner::Once, &ledger, "/c/a", Duration::ZERO);
    for _ in 0..2 {
        let before = ledger.answers();
        wait_for("answers", || (ledger.answers() > before + 100).then_some(()));
        let mut old = subject.edge.take_child();
        subject.edge.start_with(&["--takeover"]);
        assert_eq!(subject.edge.https, address, "the same socket");
        let status = wait_for("the old program to end", || old.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
    kept.stop();
    fresh.stop();
    assert_eq!(ledger.failed.load(Relaxed), 0);
    wait_delivered(&subject.edge, &ledger.answered());
    assert_exactly_once(&subject.edge, &ledger);
}

#[test]
fn clients_of_http_2_are_told_to_go_and_lose_nothing() {
    let config = secured("", SITE).replace("drain_min = \"200ms\"", "drain_min = \"2s\"");
    let mut subject = Subject::configured(shop, &config);
    // Twice as long as the drain takes, at a pace that keeps its connections.
    let address = subject.edge.https.to_string();
    let load = Command::new("h2load")
        .args(["-D", "4", "-c", "4", "-m", "4", "--rps", "100", "--connect-to", &address])
        .arg(format!("https://click.test:{}/c/a", subject.edge.https.port()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("clicks", || {
        (subject.edge.metric("holdfast_requests_total", "redirected") > 50.0).then_some(())
    });
    subject.edge.signal("TERM");
    let mut child = subject.edge.take_child();
    let status = wait_for("the end", || child.try_wait().unwrap());
    assert!(status.success(), "{status}\n{}", subject.edge.log());
    let said = load.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout);
    // What was under way when the GOAWAY came is answered; h2load counts what it would have sent more.
    assert!(said.contains("0 4xx, 0 5xx"), "{said}");
}

#[test]
fn sites_send_clients_to_https_and_bind_them_to_it() {
    let site = SITE.replace(
        "preset = \"dotdigital\"",
        "preset = \"dotdigital\"\nhttps_redirect = \"301\"\nhsts = \"365d\"\nhsts_subdomains = true",
    );
    let config = secured("", &format!("{site}{OTHER_SITE}"));
    let subject = Subject::configured(shop, &config);
    let ask = |text: &str| raw(subject.edge.http, text.as_bytes()).unwrap();
    let answer = subject.edge.get("click.test", "/c/a?x=%20y");
    assert_eq!((answer.status, answer.header("location")), (301, Some("https://click.test/c/a?x=%20y")));
    assert_eq!(answer.header("strict-transport-security"), None, "said over TLS only (RFC 6797 §7.2)");
    let answer = ask("GET /c/a HTTP/1.1\r\nHost: A.Wild.test:8080\r\n\r\n");
    assert_eq!(answer.header("location"), Some("https://a.wild.test/c/a"), "the host in its one spelling");
    assert_eq!(ask("HEAD /c/a HTTP/1.1\r\nHost: click.test\r\n\r\n").status, 301);
    assert_eq!(ask("POST /c/a HTTP/1.1\r\nHost: click.test\r\nContent-Length: 0\r\n\r\n").status, 405);
    let answer = ask("GET /c/a?x=\\ HTTP/1.1\r\nHost: click.test\r\n\r\n");
    assert_eq!(answer.status, 302, "what no Location can say is answered without TLS");
    assert_eq!(
        ask("GET //evil.test/ HTTP/1.1\r\nHost: click.test\r\n\r\n").header("location"),
        Some("https://click.test//evil.test/")
    );
    let answer = subject.edge.get("click.test", "/.well-known/acme-challenge/token");
    assert_ne!(answer.status, 301, "{answer:?}");
    assert_eq!(subject.edge.get("other.test", "/c/a").status, 302, "another site's affair");
    assert_eq!(subject.edge.get("deep.a.wild.test", "/c/a").status, 302, "there is no certificate for it");
    assert!(subject.edge.metric("holdfast_upgraded_requests_total", "shop") >= 3.0);

    for path in ["/c/a", "/c/unknown", "/nowhere"] {
        let answer = subject.get("click.test", "click.test", path);
        let said = answer.header("strict-transport-security");
        assert_eq!(said, Some("max-age=31536000; includeSubDomains"), "{path}: {answer:?}");
    }
}

#[test]
fn the_client_is_the_one_that_a_trusted_load_balancer_or_proxy_names() {
    let listen = "threads = 2\nproxy_protocol = [\"127.0.0.0/8\"]\ntrusted_proxies = [\"192.0.2.0/24\"]";
    let config = secured("", SITE)
        .replace("threads = 2", listen)
        .replace("[tls]", "[privacy]\naddress = \"full\"\n[tls]");
    let subject = Subject::configured(shop, &config);
    let address = |query: &str| {
        let sql = format!("select count(*) from hits where address = {query}");
        subject.edge.wait_count(&sql, 1);
    };
    let plain = |header: &[u8], fields: &str| {
        let request = format!("GET /c/a HTTP/1.1\r\nHost: click.test\r\n{fields}\r\n");
        raw(subject.edge.http, &[header, request.as_bytes()].concat())
    };
    assert_eq!(plain(b"PROXY TCP4 198.51.100.1 203.0.113.1 4711 80\r\n", "").unwrap().status, 302);
    address("'198.51.100.1'");
    assert_eq!(
        plain(b"PROXY TCP4 198.51.100.2 203.0.113.1 4711 80\r\n", "X-Forwarded-For: 198.51.100.99\r\n")
            .unwrap()
            .status,
        302
    );
    address("'198.51.100.2'");
    let fields = "X-Forwarded-For: 198.51.100.98, 198.51.100.3\r\nX-Forwarded-For: 192.0.2.9\r\n";
    assert_eq!(plain(b"PROXY TCP4 192.0.2.1 203.0.113.1 4711 80\r\n", fields).unwrap().status, 302);
    address("'198.51.100.3'");
    assert!(plain(b"", "").is_err(), "a load balancer that says nothing is not believed");
    assert_eq!(subject.edge.metric("holdfast_refused_total", "proxy_header"), 1.0);
    assert_eq!(
        subject.edge.metric("holdfast_connections_total", ""),
        3.0,
        "refused ones are counted as that"
    );

    // Before TLS, by version 2 as curl's own load balancer would send it.
    let said =
        subject.curl("click.test", &["--haproxy-protocol", "-w", "%{http_code}", "-o", "/dev/null"], "/c/a");
    assert_eq!(said, "302");
    let mut stream = TcpStream::connect(subject.edge.https).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24".to_vec();
    header.extend("2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets());
    header.extend([0; 20]);
    stream.write_all(&header).unwrap();
    let name = ServerName::try_from("click.test").unwrap();
    let connection = ClientConnection::new(subject.authority.client(), name).unwrap();
    let answer = Client::over(StreamOwned::new(connection, stream)).get("click.test", "/c/a").unwrap();
    assert_eq!(answer.status, 302);
    address("'2001:db8::7'");

    // Whoever is not named there says who he is in vain.
    let others = config.replace("[\"127.0.0.0/8\"]", "[\"192.0.2.0/24\"]");
    let subject = Subject::configured(shop, &others);
    let request = "GET /c/a HTTP/1.1\r\nHost: click.test\r\nX-Forwarded-For: 198.51.100.4\r\n\r\n";
    let header = "PROXY TCP4 198.51.100.4 203.0.113.1 4711 80\r\n";
    assert_eq!(raw(subject.edge.http, format!("{header}{request}").as_bytes()).unwrap().status, 400);
    assert_eq!(raw(subject.edge.http, request.as_bytes()).unwrap().status, 302);
    subject.edge.wait_count("select count(*) from hits where address = '127.0.0.1'", 1);
    assert_eq!(subject.edge.count("select count(*) from hits"), 1);
}

/// The folder of certificates is on a disk that is not there: that stopped plain http, too.
#[test]
fn without_the_folder_of_certificates_http_is_served_and_https_waits() {
    let mut edge = prepared(&secured("", SITE));
    fs::rename(edge.path("certs"), edge.path("away")).unwrap();
    let authority = Authority::new();
    fs::write(edge.path("away").join("shop.pem"), authority.issue(&["click.test"]).bundle()).unwrap();
    let checked = edge.run(&["check"]);
    assert_eq!(checked.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&checked.stderr).contains("tls.folder"), "{checked:?}");
    edge.launch(&[]);
    wait_for("http", || (get(edge.http, "click.test", "/c/a").ok()?.status == 302).then_some(()));
    assert!(edge.log().contains("a certificate file has a fault"), "{}", edge.log());
    fs::rename(edge.path("away"), edge.path("certs")).unwrap();
    wait_for("https", || connect(edge.https, &authority.client(), "click.test").ok());
}

#[test]
fn an_idle_connection_of_http_2_is_told_to_go_and_so_is_one_of_an_edge_that_ends() {
    let subject = Subject::configured(
        shop,
        &secured("", SITE).replace("[log]", "[limits]\nidle_timeout = \"1s\"\n[log]"),
    );
    let mut client = Frames::open(&subject);
    client.send(&get_frame(1));
    assert_eq!(client.find(Frames::HEADERS).expect("an answer").0, 1);
    let (_, content) = client.find(Frames::GOAWAY).expect("it is told");
    assert_eq!(content[4..8], [0; 4], "without an error");
    assert!(client.find(Frames::GOAWAY).is_none_or(|(_, content)| content[4..8] == [0; 4]));
    while client.next().is_some() {}

    // Idle, when the edge ends.
    let subject = Subject::plain();
    let mut client = Frames::open(&subject);
    client.send(&get_frame(1));
    assert_eq!(client.find(Frames::HEADERS).expect("an answer").0, 1);
    subject.edge.signal("TERM");
    assert!(client.find(Frames::GOAWAY).is_some(), "it is told");
}

#[test]
fn a_flood_of_pings_costs_others_nothing_and_is_answered_as_fast_as_it_is_read() {
    let subject = Subject::plain();
    let mut client = Frames::open(&subject);
    let ping = frame(Frames::PING, 0, 0, &[7; 8]);
    for _ in 0..200 {
        client.send(&ping.repeat(100));
        for _ in 0..100 {
            client.find(Frames::PING).expect("an answer");
        }
    }
    assert_eq!(subject.get("click.test", "click.test", "/c/a").status, 302, "others are served");
    client.send(&get_frame(1));
    assert_eq!(client.find(Frames::HEADERS).expect("an answer").0, 1);
    // An answer that nobody asked for is no line in the log.
    client.send(&frame(Frames::PING, 1, 0, &[1; 8]).repeat(1000));
    client.send(&get_frame(3));
    assert_eq!(client.find(Frames::HEADERS).expect("an answer").0, 3);
    assert!(!subject.edge.log().contains("h2::"), "{}", subject.edge.log());
    // Unread, they fill the connection's buffers and wait with the client.
    let mut deaf = Frames::open(&subject);
    deaf.0.sock.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let many = ping.repeat(10_000);
    let stopped = (0..200).any(|_| deaf.0.write_all(&many).and_then(|()| deaf.0.flush()).is_err());
    assert!(stopped, "nobody takes pings without end");
    assert_eq!(subject.get("click.test", "click.test", "/c/a").status, 302, "others are served");
}

#[test]
fn a_reload_takes_tls_settings_whole_or_not_at_all() {
    let subject = Subject::plain();
    let elsewhere = subject.edge.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let moved = subject.authority.issue(&["click.test"]);
    fs::write(elsewhere.join("a.pem"), moved.bundle()).unwrap();
    let config = |tls: &str| {
        let text = secured(tls, SITE);
        fs::write(subject.edge.path("holdfast.toml"), text).unwrap();
        subject.edge.ask(&["reload"])
    };
    let refused = config("folder = \"elsewhere\"\nhello_timeout = \"0s\"");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("tls.hello_timeout: found \"0s\""), "{said}");
    // A folder that is not there takes nothing away.
    assert!(config("folder = \"nowhere\"").status.success());
    wait_for("the fault", || (subject.edge.metric("holdfast_certificate_faults", "") >= 1.0).then_some(()));
    assert_eq!(subject.get("click.test", "click.test", "/c/a").status, 302);
    assert!(config("folder = \"elsewhere\"").status.success());
    subject.wait_shown("click.test", &moved);
    assert!(subject.shown("a.wild.test").is_err(), "its certificate is not in the new folder");
}

#[test]
fn no_key_is_in_what_the_edge_says_of_itself() {
    let subject = Subject::plain();
    let said = [
        subject.edge.metrics(),
        subject.edge.status().to_string(),
        subject.edge.tell(&["certs", "list", "--json"]),
        subject.edge.ok(&["check", "--print"]),
        subject.edge.log(),
    ];
    let key = fs::read_to_string(subject.file("shop.pem")).unwrap();
    let secret = key.lines().skip_while(|line| !line.contains("PRIVATE")).nth(1).unwrap();
    assert!(said.iter().all(|text| !text.contains(secret)));
}

#[test]
fn sockets_passed_by_systemd_are_used_for_https_too() {
    let authority = Authority::new();
    let edge = prepared(&secured("", SITE));
    fs::write(edge.path("certs").join("shop.pem"), &shop(&authority)[0].1).unwrap();
    let listeners: [std::net::TcpListener; 2] =
        [(), ()].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let [plain, tls] = [0, 1].map(|at| listeners[at].local_addr().unwrap());
    let config = secured("", SITE)
        .replacen("http = [\"127.0.0.1:0\"]", &format!("http = [\"{plain}\"]"), 1)
        .replacen("https = [\"127.0.0.1:0\"]", &format!("https = [\"{tls}\"]"), 1);
    fs::write(edge.path("holdfast.toml"), config).unwrap();
    // systemd passes descriptors from 3 on and names the process; a shell does the same here.
    let script =
        format!("export LISTEN_FDS=2 LISTEN_PID=$$; exec {} serve 3<&0 4<&1", env!("CARGO_BIN_EXE_holdfast"));
    let [plain_socket, tls_socket] =
        listeners.map(|listener| Stdio::from(std::os::fd::OwnedFd::from(listener)));
    let mut child = Command::new("bash")
        .args(["-c", &script])
        .current_dir(edge.folder.path())
        .stdin(plain_socket)
        .stdout(tls_socket)
        .stderr(fs::File::create(edge.path("systemd.log")).unwrap())
        .spawn()
        .unwrap();
    wait_for("an answer on the passed socket", || {
        get(plain, "click.test", "/c/a").ok().filter(|answer| answer.status == 302)
    });
    let stream = connect(tls, &authority.client(), "click.test").unwrap();
    assert_eq!(Client::over(stream).get("click.test", "/c/a").unwrap().status, 302);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Frames of HTTP/2, made and read by hand: no client sends what these tests send.
struct Frames(Secure);

impl Frames {
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    const CONTINUATION: u8 = 9;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;

    fn open(subject: &Subject) -> Self {
        let mut config = ClientConfig::clone(&subject.authority.client());
        config.alpn_protocols = vec![b"h2".to_vec()];
        let mut stream = connect(subject.edge.https, &Arc::new(config), "click.test").unwrap();
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let mut frames = Self(stream);
        frames.send(&frame(Self::SETTINGS, 0, 0, &[]));
        frames
    }

    fn send(&mut self, bytes: &[u8]) {
        // The other side may have had enough.
        let _ = self.0.write_all(bytes).and_then(|()| self.0.flush());
    }

    /// The next frame's type, stream and content; `None` at the end.
    fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let [a, b, c, kind, _flags, stream @ ..] = head;
        let mut content = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut content).ok()?;
        Some((kind, u32::from_be_bytes(stream) & 0x7fff_ffff, content))
    }

    /// Skips to a frame of that type.
    fn find(&mut self, wanted: u8) -> Option<(u32, Vec<u8>)> {
        loop {
            let (kind, stream, content) = self.next()?;
            if kind == wanted {
                return Some((stream, content));
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
}

/// The head of a GET of a known link, in HPACK without a dictionary.
fn get_head() -> Vec<u8> {
    [&[0x82, 0x87, 0x04, 4][..], b"/c/a", &[0x01, 10], b"click.test"].concat()
}

fn get_frame(stream: u32) -> Vec<u8> {
    frame(Frames::HEADERS, Frames::END_STREAM | Frames::END_HEADERS, stream, &get_head())
}

#[test]
fn the_bounds_of_http_2_are_said_and_held() {
    let subject = Subject::plain();
    let mut client = Frames::open(&subject);
    let (_, settings) = client.find(Frames::SETTINGS).unwrap();
    let setting = |wanted: u16| {
        settings.chunks_exact(6).find_map(|setting| {
            let (key, value) = setting.split_first_chunk::<2>()?;
            (u16::from_be_bytes(*key) == wanted).then(|| u32::from_be_bytes(value.try_into().unwrap()))
        })
    };
    // Streams at once, the window of one, the length of a head; and no CONNECT for other protocols.
    assert_eq!((setting(3), setting(4), setting(6)), (Some(100), Some(64 << 10), Some(16 << 10)));
    assert_eq!(setting(8), None);

    // A head that is too long costs its request only.
    let long = [&[0x00, 1, b'x', 0x7f, 0xa1, 0x9b, 0x01][..], &[b'a'; 20_000]].concat();
    let head = [get_head(), long].concat();
    let (first, rest) = head.split_at(16_000);
    client.send(&frame(Frames::HEADERS, Frames::END_STREAM, 1, first));
    client.send(&frame(Frames::CONTINUATION, Frames::END_HEADERS, 1, rest));
    client.send(&get_frame(3));
    let answered =
        wait_for("the second answer", || client.find(Frames::HEADERS).filter(|(stream, _)| *stream == 3));
    assert_eq!(answered.0, 3);
    subject.edge.wait_count("select count(*) from hits", 1);

    // Requests that are taken back at once, by the hundred (CVE-2023-44487).
    let mut client = Frames::open(&subject);
    let flood: Vec<u8> = (0..300)
        .flat_map(|at| {
            [get_frame(2 * at + 1), frame(Frames::RST_STREAM, 0, 2 * at + 1, &[0, 0, 0, 8])].concat()
        })
        .collect();
    client.send(&flood);
    let (_, content) = client.find(Frames::GOAWAY).expect("the connection is ended with a word");
    assert_eq!(content[4..8], [0, 0, 0, 0xb], "ENHANCE_YOUR_CALM");
    assert_eq!(subject.get("click.test", "click.test", "/c/a").status, 302, "others are served");
    wait_for("the connections to be gone", || {
        (subject.edge.metric("holdfast_open_connections", "") <= 1.0).then_some(())
    });
}
