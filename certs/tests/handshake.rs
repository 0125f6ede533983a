//! Real handshakes in memory against a folder of files that changes, breaks and recovers.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is wrong")]

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use certs::{
    Certificate, Config, Consequence, Fault, KeyType, Problem, Report, Resolver, Store, UnixSeconds, watch,
};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, ClientConfig, ClientConnection, Error, HandshakeKind, RootCertStore};
use rustls::{ServerConfig, ServerConnection, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::timeout;

/// 2026-07-01, within the dates of every certificate here that is not wrong on purpose.
const NOW: UnixSeconds = UnixSeconds(1_782_864_000);

struct Issued {
    chain: String,
    key: String,
    der: CertificateDer<'static>,
}

fn issue_until(names: &[&str], year: i32) -> Issued {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(year, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Issued { chain: certificate.pem(), key: key.serialize_pem(), der: certificate.der().clone() }
}

fn issue(names: &[&str]) -> Issued {
    issue_until(names, 2090)
}

/// A folder with its store and resolver.
struct Subject {
    folder: tempfile::TempDir,
    store: Store,
    resolver: Resolver,
    now: UnixSeconds,
}

impl Subject {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, resolver) = watch(Config { folder: Some(folder.path().to_owned()), default: None });
        Self { folder, store, resolver, now: NOW }
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.folder.path().join(file), text).unwrap();
    }

    fn remove(&self, file: &str) {
        fs::remove_file(self.folder.path().join(file)).unwrap();
    }

    fn reload(&mut self) -> Report {
        self.store.reload(self.now)
    }

    /// Reloads, and again when a file that is gone is taken to be gone.
    fn reload_later(&mut self) -> Report {
        self.reload();
        self.now.0 += 3;
        self.reload()
    }

    /// Expects exactly one fault.
    fn reload_faulty(&mut self) -> Fault {
        let mut faults = self.reload().faults;
        assert_eq!(faults.len(), 1, "{faults:?}");
        faults.remove(0)
    }

    #[track_caller]
    fn serves(&self, name: &str, expected: &Issued) {
        assert_eq!(handshake(&self.resolver, name, expected), Ok(expected.der.clone()), "{name}");
    }

    #[track_caller]
    fn refuses(&self, name: &str, client_trusts: &Issued) {
        let alert = Error::AlertReceived(AlertDescription::AccessDenied);
        assert_eq!(handshake(&self.resolver, name, client_trusts), Err(alert), "{name}");
    }
}

/// What a client that trusts `trusted` is shown under `name`, or how its handshake ends.
fn handshake(resolver: &Resolver, name: &str, trusted: &Issued) -> Result<CertificateDer<'static>, Error> {
    handshake_with(resolver, name, trusted, None)
}

/// The same for a client that can check signatures of one scheme only.
fn handshake_with(
    resolver: &Resolver,
    name: &str,
    trusted: &Issued,
    only: Option<SignatureScheme>,
) -> Result<CertificateDer<'static>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der.clone()).unwrap();
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    if let Some(only) = only {
        let mapping = provider.signature_verification_algorithms.mapping;
        let one = mapping.iter().copied().filter(|(scheme, _)| *scheme == only).collect::<Vec<_>>();
        provider.signature_verification_algorithms.mapping = one.leak();
    }
    let client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let server = ServerConfig::builder().with_no_client_auth().with_cert_resolver(Arc::new(resolver.clone()));
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();

    while client.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut wire.as_slice()).unwrap();
        // The server's own error is seen by the client as an alert.
        let _ = server.process_new_packets();
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(client.peer_certificates().expect("the handshake is done")[0].clone().into_owned())
}

#[test]
fn names_come_from_the_certificates_and_keys_find_their_chains() {
    let (shop, mail) = (issue(&["Click.Shop.example", "shop.example"]), issue(&["*.mail.example"]));
    let mut subject = Subject::new();
    subject.write("a.crt", &shop.chain);
    subject.write("z.key", &shop.key);
    subject.write("bundle", &format!("{}{}", mail.key, mail.chain));
    subject.write(".hidden", "not PEM");
    fs::create_dir(subject.folder.path().join("folder")).unwrap();

    let report = subject.reload();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    assert_eq!((report.certificates, report.names), (2, 3));
    subject.serves("click.shop.example", &shop);
    subject.serves("shop.example", &shop);
    subject.serves("CLICK.shop.example", &shop);
    subject.serves("news.mail.example", &mail);
}

#[test]
fn a_name_that_no_certificate_covers_gets_an_alert() {
    let mail = issue(&["*.mail.example"]);
    let mut subject = Subject::new();
    subject.refuses("news.mail.example", &mail); // nothing is served before the first reload
    subject.write("mail.pem", &format!("{}{}", mail.chain, mail.key));
    subject.reload();
    for name in ["mail.example", "a.b.mail.example", "other.example", "127.0.0.1"] {
        subject.refuses(name, &mail); // an address as name means no server name is sent
    }
}

#[test]
fn an_exact_name_goes_before_a_wildcard() {
    let (all, one) = (issue(&["*.shop.example"]), issue(&["a.shop.example"]));
    let mut subject = Subject::new();
    subject.write("all.pem", &format!("{}{}", all.chain, all.key));
    subject.write("one.pem", &format!("{}{}", one.chain, one.key));
    subject.reload();
    subject.serves("a.shop.example", &one);
    subject.serves("b.shop.example", &all);
}

#[test]
fn key_and_chain_replaced_one_after_the_other_change_in_one_step() {
    let (old, new) = (issue(&["shop.example"]), issue(&["shop.example"]));
    for key_first in [true, false] {
        let mut subject = Subject::new();
        subject.write("shop.crt", &old.chain);
        subject.write("shop.key", &old.key);
        subject.reload();
        if key_first {
            subject.write("shop.key", &new.key);
        } else {
            subject.write("shop.crt", &new.chain);
        }

        let fault = subject.reload_faulty();
        assert!(matches!(fault.problem, Problem::NoKey), "{fault}");
        assert_eq!(fault.consequence, Consequence::EarlierKept);
        assert_eq!(fault.file.file_name(), Some("shop.crt".as_ref()));
        subject.serves("shop.example", &old);

        subject.write("shop.key", &new.key);
        subject.write("shop.crt", &new.chain);
        assert!(subject.reload().faults.is_empty());
        subject.serves("shop.example", &new);
    }
}

#[test]
fn a_damaged_file_keeps_the_earlier_pair_and_is_named() {
    let good = issue(&["shop.example"]);
    let bundle = format!("{}{}", good.chain, good.key);
    let half = &bundle[..bundle.len() / 3];
    let long = format!("{bundle}{}", "#".repeat(1 << 20));
    let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for damaged in ["", half, "# nothing", &long, not_der] {
        let mut subject = Subject::new();
        subject.write("shop.pem", &bundle);
        subject.reload();
        subject.write("shop.pem", damaged);
        let fault = subject.reload_faulty();
        assert_eq!(fault.consequence, Consequence::EarlierKept, "{fault}");
        assert!(fault.to_string().contains("shop.pem: "), "{fault}");
        subject.serves("shop.example", &good);
    }
}

#[test]
fn a_damaged_file_without_an_earlier_pair_leaves_the_others_alone() {
    let good = issue(&["shop.example"]);
    let mut subject = Subject::new();
    subject.write("shop.pem", &format!("{}{}", good.chain, good.key));
    subject.write(
        "encrypted.pem",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let fault = subject.reload_faulty();
    assert!(matches!(fault.problem, Problem::Encrypted), "{fault}");
    assert_eq!(fault.consequence, Consequence::NotServed);
    subject.serves("shop.example", &good);
}

#[test]
fn a_removed_certificate_goes_but_an_emptied_folder_keeps_all() {
    let (shop, mail) = (issue(&["shop.example"]), issue(&["mail.example"]));
    let mut subject = Subject::new();
    subject.write("shop.pem", &format!("{}{}", shop.chain, shop.key));
    subject.write("mail.pem", &format!("{}{}", mail.chain, mail.key));
    subject.reload();
    subject.remove("mail.pem");
    assert!(subject.reload_later().faults.is_empty());
    subject.refuses("mail.example", &mail);

    subject.remove("shop.pem");
    subject.reload_later();
    let fault = subject.reload_faulty();
    assert!(matches!(fault.problem, Problem::Emptied), "{fault}");
    subject.serves("shop.example", &shop);

    fs::remove_dir(subject.folder.path()).unwrap();
    let fault = subject.reload_faulty();
    assert!(matches!(fault.problem, Problem::Unreadable(_)), "{fault}");
    assert_eq!(fault.consequence, Consequence::EarlierKept);
    subject.serves("shop.example", &shop);
}

/// A tool that removes a file and writes it anew was seen in between, and the name had no certificate for
/// a poll.
#[test]
fn a_file_that_is_missing_for_a_moment_is_not_missed() {
    let (shop, mail, renewed) =
        (issue(&["shop.example"]), issue(&["mail.example"]), issue(&["mail.example"]));
    let mut subject = Subject::new();
    subject.write("shop.pem", &format!("{}{}", shop.chain, shop.key));
    subject.write("mail.pem", &format!("{}{}", mail.chain, mail.key));
    subject.reload();
    for issued in [&mail, &renewed] {
        subject.remove("mail.pem");
        assert!(subject.reload().faults.is_empty());
        subject.now.0 += 2;
        subject.reload();
        subject.serves("mail.example", &mail);
        subject.write("mail.pem", &format!("{}{}", issued.chain, issued.key));
        subject.reload();
        subject.serves("mail.example", issued);
        subject.now.0 += 10;
        subject.reload();
        subject.serves("mail.example", issued);
    }
}

#[test]
fn dates_decide_between_two_and_never_take_the_only_one_away() {
    let (ended, ends_soon, ends_late) = (
        issue_until(&["shop.example"], 2025),
        issue_until(&["shop.example"], 2080),
        issue(&["shop.example"]),
    );
    let bundle = |issued: &Issued| format!("{}{}", issued.chain, issued.key);
    let mut subject = Subject::new();
    subject.write("shop.pem", &bundle(&ended));
    let fault = subject.reload_faulty();
    assert!(matches!(fault.problem, Problem::Dates { .. }), "{fault}");
    assert_eq!(fault.consequence, Consequence::Served);

    subject.write("shop.pem", &bundle(&ends_soon));
    subject.write("a.pem", &bundle(&ends_late));
    let report = subject.reload();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    assert_eq!(report.ends_first, Some(UnixSeconds(3_471_292_800)));
    subject.serves("shop.example", &ends_late);

    subject.remove("a.pem");
    subject.reload_later();
    subject.serves("shop.example", &ends_soon);
    subject.write("shop.pem", &bundle(&ended)); // an old backup laid over a good file
    let fault = subject.reload_faulty();
    assert_eq!(fault.consequence, Consequence::EarlierKept);
    subject.serves("shop.example", &ends_soon);
}

#[test]
fn the_files_of_an_acme_client_are_read_as_they_lie() {
    let key = KeyPair::generate().unwrap();
    let mut issuer = CertificateParams::new(Vec::<String>::new()).unwrap();
    issuer.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = issuer.self_signed(&ca_key).unwrap();
    let leaf = CertificateParams::new(vec!["shop.example".to_owned()])
        .unwrap()
        .signed_by(&key, &rcgen::Issuer::from_params(&issuer, &ca_key))
        .unwrap();
    let mut subject = Subject::new();
    subject.write("cert.pem", &leaf.pem());
    subject.write("chain.pem", &ca.pem());
    subject.write("fullchain.pem", &format!("{}{}", leaf.pem(), ca.pem()));
    subject.write("privkey.pem", &key.serialize_pem());

    let report = subject.reload();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    let trusted = Issued { chain: ca.pem(), key: String::new(), der: ca.der().clone() };
    assert_eq!(handshake(&subject.resolver, "shop.example", &trusted), Ok(leaf.der().clone()));
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_dangling_ones_reported() {
    let shop = issue(&["shop.example"]);
    let mut subject = Subject::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("shop.pem");
    fs::write(&target, format!("{}{}", shop.chain, shop.key)).unwrap();
    let link = |target: &Path, name: &str| {
        std::os::unix::fs::symlink(target, subject.folder.path().join(name)).unwrap();
    };
    link(&target, "shop.pem");
    link(Path::new("/nowhere/at/all"), "gone.pem");
    let fault = subject.reload_faulty();
    assert!(matches!(fault.problem, Problem::Unreadable(_)), "{fault}");
    subject.serves("shop.example", &shop);
}

fn rsa_or_ed25519(names: &[&str], algorithm: &[&str]) -> Issued {
    let openssl = |arguments: &[&str]| {
        let made = std::process::Command::new("openssl").args(arguments).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap()
    };
    let key = KeyPair::from_pem(&openssl(&[&["genpkey", "-quiet"], algorithm].concat())).unwrap();
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    Issued { chain: certificate.pem(), key: key.serialize_pem(), der: certificate.der().clone() }
}

#[test]
fn the_client_picks_the_type_of_key_by_what_it_can_check() {
    use rustls::SignatureScheme::{ECDSA_NISTP256_SHA256, ED25519, RSA_PSS_SHA256};
    let all = [
        (issue(&["shop.example"]), ECDSA_NISTP256_SHA256, KeyType::Ecdsa),
        (rsa_or_ed25519(&["shop.example"], &["-algorithm", "ED25519"]), ED25519, KeyType::Ed25519),
        (rsa_or_ed25519(&["shop.example"], &["-algorithm", "RSA"]), RSA_PSS_SHA256, KeyType::Rsa),
    ];
    let mut subject = Subject::new();
    for (at, (issued, ..)) in all.iter().enumerate() {
        subject.write(&format!("{at}.pem"), &format!("{}{}", issued.chain, issued.key));
    }
    let report = subject.reload();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    assert_eq!((report.certificates, report.names), (3, 1));
    let kinds: Vec<KeyType> = report.listing.iter().map(Certificate::key_type).collect();
    assert_eq!(kinds, all.iter().map(|(.., kind)| *kind).collect::<Vec<_>>());
    for (issued, scheme, _) in &all {
        let shown = handshake_with(&subject.resolver, "shop.example", issued, Some(*scheme));
        assert_eq!(shown, Ok(issued.der.clone()), "{scheme:?}");
    }
    subject.serves("shop.example", &all[0].0);
}

#[test]
fn a_default_is_shown_to_whoever_asks_for_nothing_known() {
    let (shop, mail) = (issue(&["shop.example"]), issue(&["*.mail.example"]));
    let mut subject = Subject::new();
    subject.write("shop.pem", &format!("{}{}", shop.chain, shop.key));
    subject.write("mail.pem", &format!("{}{}", mail.chain, mail.key));
    let folder = subject.folder.path().to_owned();
    subject
        .store
        .configure(Config { folder: Some(folder.clone()), default: Some("shop.example".to_owned()) });
    assert!(subject.reload().faults.is_empty());
    let shown = |name: &str, trusted: &Issued| match handshake(&subject.resolver, name, trusted) {
        // It is not for the name that was asked for, which this client minds.
        Err(Error::InvalidCertificate(_)) => true,
        other => panic!("{other:?}"),
    };
    assert!(shown("other.example", &shop));
    assert!(shown("127.0.0.1", &shop));
    assert_eq!(subject.resolver.default_name().as_deref(), Some("shop.example"));
    subject.serves("a.mail.example", &mail);

    subject.store.configure(Config { folder: Some(folder), default: Some("none.example".to_owned()) });
    let fault = subject.reload_faulty();
    assert!(matches!(fault.problem, Problem::Default { .. }), "{fault}");
    subject.refuses("other.example", &shop);
    subject.serves("shop.example", &shop);
}

#[test]
fn a_chain_in_the_wrong_order_is_sent_in_the_right_one() {
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        (params, KeyPair::generate().unwrap())
    };
    let ((root, root_key), (between, between_key)) = (authority("root"), authority("between"));
    let root_der = root.self_signed(&root_key).unwrap();
    let root = rcgen::Issuer::from_params(&root, &root_key);
    let between_der = between.signed_by(&between_key, &root).unwrap();
    let between = rcgen::Issuer::from_params(&between, &between_key);
    let key = KeyPair::generate().unwrap();
    let leaf =
        CertificateParams::new(vec!["shop.example".to_owned()]).unwrap().signed_by(&key, &between).unwrap();

    let mut subject = Subject::new();
    subject.write("shop.pem", &[root_der.pem(), between_der.pem(), leaf.pem(), key.serialize_pem()].concat());
    let report = subject.reload();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    let trusted = Issued { chain: String::new(), key: String::new(), der: root_der.der().clone() };
    assert_eq!(handshake(&subject.resolver, "shop.example", &trusted), Ok(leaf.der().clone()));
}

#[test]
fn an_older_certificate_does_not_replace_a_newer_one_but_a_shorter_lived_one_does() {
    let issue_between = |from: i32, until: i32| {
        let mut params = CertificateParams::new(vec!["shop.example".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Issued { chain: certificate.pem(), key: key.serialize_pem(), der: certificate.der().clone() }
    };
    let bundle = |issued: &Issued| format!("{}{}", issued.chain, issued.key);
    let (first, second, backup) =
        (issue_between(2024, 2040), issue_between(2025, 2030), issue_between(2023, 2050));
    let mut subject = Subject::new();
    subject.write("shop.pem", &bundle(&first));
    subject.reload();
    subject.write("shop.pem", &bundle(&second));
    assert!(subject.reload().faults.is_empty());
    subject.serves("shop.example", &second);
    subject.write("shop.pem", &bundle(&backup));
    let fault = subject.reload_faulty();
    assert!(matches!(fault.problem, Problem::Older { .. }), "{fault}");
    assert_eq!(fault.consequence, Consequence::EarlierKept);
    subject.serves("shop.example", &second);
}

#[test]
fn two_servers_certificates_in_one_file_are_told_of() {
    let (one, other) = (issue(&["one.example"]), issue(&["other.example"]));
    let mut subject = Subject::new();
    subject.write("both.pem", &[&*one.chain, &*one.key, &*other.chain, &*other.key].concat());
    let fault = subject.reload_faulty();
    assert!(matches!(fault.problem, Problem::Stray), "{fault}");
    subject.serves("one.example", &one);
    subject.refuses("other.example", &other);
}

#[test]
fn a_key_that_lies_is_dropped_after_the_start_and_replaces_none() {
    let (good, other) = (issue(&["shop.example"]), KeyPair::generate().unwrap());
    let honest = KeyPair::from_pem(&good.key).unwrap();
    let mut der = honest.serialize_der();
    // The secret half of another key under this one's public half.
    let secret_at = der.windows(2).position(|window| window == [4, 32]).unwrap() + 2;
    let theirs = other.serialize_der();
    der[secret_at..secret_at + 32].copy_from_slice(&theirs[secret_at..secret_at + 32]);
    let lie = pem(&der);

    let mut subject = Subject::new();
    subject.write("shop.pem", &format!("{}{lie}", good.chain));
    assert!(subject.reload().faults.is_empty(), "taken at its word, to be ready soon");
    let fault = subject.reload_faulty();
    assert!(matches!(fault.problem, Problem::Key(_)), "{fault}");
    assert_eq!(fault.consequence, Consequence::NotServed);
    subject.refuses("shop.example", &good);

    subject.write("shop.pem", &format!("{}{}", good.chain, good.key));
    subject.reload();
    subject.serves("shop.example", &good);
    subject.write("shop.pem", &format!("{}{lie}", good.chain));
    assert_eq!(subject.reload_faulty().consequence, Consequence::EarlierKept);
    subject.serves("shop.example", &good);
}

fn pem(der: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.der");
    fs::write(&file, der).unwrap();
    let made = std::process::Command::new("openssl")
        .args(["base64", "-in", file.to_str().unwrap()])
        .output()
        .unwrap();
    let text = String::from_utf8(made.stdout).unwrap();
    format!("-----BEGIN PRIVATE KEY-----\n{text}-----END PRIVATE KEY-----\n")
}

/// A time at which files written now have been as they are for long.
fn later() -> UnixSeconds {
    UnixSeconds(NOW.0 + 20 * 365 * 86_400)
}

#[test]
fn a_file_that_has_not_changed_is_not_read_again() {
    use std::os::unix::fs::PermissionsExt as _;
    let (shop, mail) = (issue(&["shop.example"]), issue(&["mail.example"]));
    let mut subject = Subject::new();
    subject.write("shop.pem", &format!("{}{}", shop.chain, shop.key));
    subject.store.reload(later());
    let file = subject.folder.path().join("shop.pem");
    let inode_changed =
        || fs::metadata(&file).map(|meta| std::os::unix::fs::MetadataExt::ctime(&meta)).unwrap();
    assert!(inode_changed() < later().0);
    // Whoever reads it again finds that it may not, unless it may read everything.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let first = subject.store.reload(later()).listing;
    let second = subject.store.reload(later()).listing;
    assert!(Arc::ptr_eq(&first, &second), "nothing was published anew");

    subject.write("mail.pem", &format!("{}{}", mail.chain, mail.key));
    let third = subject.store.reload(later());
    assert_eq!(third.certificates, 2);
    subject.serves("mail.example", &mail);
    subject.serves("shop.example", &shop);
}

/// A server of `shop.example`, and a client that trusts it.
fn shop() -> (certs::Server, Arc<ClientConfig>) {
    let shop = issue(&["shop.example"]);
    let mut subject = Subject::new();
    subject.write("shop.pem", &format!("{}{}", shop.chain, shop.key));
    subject.reload();
    let (_keys, ticketer) = certs::tickets(certs::Secret::random(), NOW);
    let mut roots = RootCertStore::empty();
    roots.add(shop.der).unwrap();
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    (certs::Server::new(subject.resolver, ticketer), Arc::new(client))
}

/// What a client has to send.
fn said(client: &mut ClientConnection) -> Vec<u8> {
    let mut wire = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut wire).unwrap();
    }
    wire
}

/// Gives a client what there is for it.
async fn hear(client: &mut ClientConnection, near: &mut DuplexStream) -> Result<(), Error> {
    let mut bytes = vec![0; 65_536];
    let length = near.read(&mut bytes).await.unwrap();
    client.read_tls(&mut &bytes[..length]).unwrap();
    client.process_new_packets().map(|_| ())
}

/// The ticket once left as a packet of its own, which cost each full handshake some four percent.
#[tokio::test]
async fn the_ticket_comes_with_the_first_answer() {
    let (server, config) = shop();

    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let name = ServerName::try_from("shop.example").unwrap();
        let mut client = ClientConnection::new(Arc::clone(&config), name).unwrap();
        let (mut near, far) = tokio::io::duplex(65_536);
        let serving = async {
            let hello = certs::Hello::read(far).await.unwrap();
            server.finish(hello).await.unwrap().stream
        };
        let asking = async {
            near.write_all(&said(&mut client)).await.unwrap();
            while client.is_handshaking() {
                hear(&mut client, &mut near).await.unwrap();
            }
            near.write_all(&said(&mut client)).await.unwrap();
        };
        let (mut stream, ()) = tokio::join!(serving, asking);
        assert_eq!(client.handshake_kind(), Some(expected));
        stream.flush().await.unwrap();
        let early = timeout(Duration::ZERO, near.read_u8()).await;
        assert!(early.is_err(), "nothing is sent before the first answer");

        stream.write_all(b"an answer").await.unwrap();
        hear(&mut client, &mut near).await.unwrap();
        let mut answer = [0; 9];
        client.reader().read_exact(&mut answer).unwrap();
        assert_eq!((&answer, client.tls13_tickets_received()), (b"an answer", 1));
    }
}

/// A fault found in the client's last words: the alert is encrypted like a ticket, and must not wait like one.
#[tokio::test]
async fn a_client_whose_end_of_the_handshake_is_wrong_is_told() {
    let (server, config) = shop();
    let mut client = ClientConnection::new(config, ServerName::try_from("shop.example").unwrap()).unwrap();
    let (mut near, far) = tokio::io::duplex(65_536);
    let serving = async { server.finish(certs::Hello::read(far).await.unwrap()).await.err() };
    let asking = async {
        near.write_all(&said(&mut client)).await.unwrap();
        while client.is_handshaking() {
            hear(&mut client, &mut near).await.unwrap();
        }
        let mut last = said(&mut client);
        *last.last_mut().unwrap() ^= 1;
        near.write_all(&last).await.unwrap();
        hear(&mut client, &mut near).await.err()
    };
    let (ended, told) = tokio::join!(serving, asking);
    assert_eq!(told, Some(Error::AlertReceived(AlertDescription::BadRecordMac)));
    assert_eq!(ended, Some(certs::Ended::Malformed));
}

/// How long it takes is printed, not asserted: machines that run tests are noisy.
#[test]
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "prints how long it takes")]
fn ten_thousand_certificates_are_found_by_their_names() {
    let mut subject = Subject::new();
    let issued: Vec<Issued> = (0..10_000).map(|at| issue(&[&format!("name-{at}.example")])).collect();
    for (at, issued) in issued.iter().enumerate() {
        subject.write(&format!("{at}.pem"), &format!("{}{}", issued.chain, issued.key));
    }
    let timed = |what: &str, subject: &mut Subject, now| {
        let begun = std::time::Instant::now();
        let report = subject.store.reload(now);
        println!("{what}: {} certificates in {:?}", report.certificates, begun.elapsed());
        assert_eq!((report.certificates, report.names, report.faults.len()), (10_000, 10_000, 0));
    };
    timed("first", &mut subject, later());
    timed("verified", &mut subject, later());
    timed("unchanged", &mut subject, later());
    for at in [0, 4_999, 9_999] {
        subject.serves(&format!("name-{at}.example"), &issued[at]);
    }
}
