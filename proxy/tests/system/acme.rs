//! Certificates that the edge orders by itself, from a real authority: ahead, on demand, by several edges.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;

use crate::cluster::{Cluster, Port};
use crate::edge::{Client, Edge, SITE, configuration, get, wait_for};
use crate::pebble::Pebble;
use crate::tls::{Authority, connect};

const LINKS: &str = "namespace,token,url\none,a,https://example.com/a\n";
const CHALLENGE: &str = "/.well-known/acme-challenge/";

/// An edge that orders from Pebble, and what its clients trust.
struct Scene {
    edge: Edge,
    pebble: Pebble,
    client: Arc<ClientConfig>,
}

/// A configuration on these ports; `acme` goes into `[tls.acme]`, `sites` below it.
fn ordering(base: &str, pebble: &Pebble, (http, https): (&Port, &Port), acme: &str) -> String {
    let (root, directory) = (pebble.root().display().to_string(), pebble.directory());
    let listen = format!("http = [\"127.0.0.1:{}\"]\nhttps = [\"127.0.0.1:{}\"]", http.number, https.number);
    // Below the edge's own tables, for the sites and what belongs to them come last.
    let (tables, sites) = base.split_once("[[site]]").expect("a site");
    let tables = tables.replace("http = [\"127.0.0.1:0\"]", &listen);
    format!(
        "{tables}[tls]\npoll = \"100ms\"\n[tls.acme]\ndirectory = \"{directory}\"\nterms_agreed = true\n\
         roots_file = \"{root}\"\n{acme}\n[[site]]{sites}"
    )
}

impl Scene {
    fn new(acme: &str, sites: &str) -> Self {
        Self::with(Pebble::start(), acme, sites)
    }

    fn with(pebble: Pebble, acme: &str, sites: &str) -> Self {
        let config = ordering(&configuration(sites), &pebble, (&pebble.http, &pebble.https), acme);
        let client = pebble.client();
        Self { edge: Edge::with(&config, LINKS), pebble, client }
    }

    fn configure(&self, acme: &str, sites: &str) {
        let ports = (&self.pebble.http, &self.pebble.https);
        let config = ordering(&configuration(sites), &self.pebble, ports, acme);
        fs::write(self.edge.path("holdfast.toml"), config).unwrap();
        self.edge.tell(&["reload"]);
    }

    /// The certificate that a client is shown which trusts the authority.
    fn shown(&self, name: &str) -> Result<CertificateDer<'static>, String> {
        shown(&self.edge, &self.client, name)
    }

    fn wait_shown(&self, name: &str) -> CertificateDer<'static> {
        wait_shown(&self.edge, &self.client, name)
    }

    fn events(&self, event: &str) -> f64 {
        self.edge.metric("holdfast_acme_events_total", &format!("event=\"{event}\""))
    }

    fn wait_event(&self, event: &str) {
        wait_for(event, || (self.events(event) >= 1.0).then_some(()));
    }

    fn order(&self, name: &str) -> serde_json::Value {
        let listed: serde_json::Value =
            serde_json::from_str(&self.edge.tell(&["certs", "list", "--json"])).unwrap();
        let orders = listed["orders"].as_array().unwrap();
        orders.iter().find(|order| order["name"] == name).cloned().unwrap_or_default()
    }
}

fn shown(edge: &Edge, client: &Arc<ClientConfig>, name: &str) -> Result<CertificateDer<'static>, String> {
    let stream = connect(edge.https, client, name).map_err(|error| error.to_string())?;
    Ok(stream.conn.peer_certificates().unwrap()[0].clone().into_owned())
}

fn wait_shown(edge: &Edge, client: &Arc<ClientConfig>, name: &str) -> CertificateDer<'static> {
    wait_for("a certificate", || shown(edge, client, name).ok())
}

#[test]
fn hosts_are_ordered_ahead_by_http_01_and_a_reload_adds_one() {
    let site = SITE.replace("preset", "https_redirect = \"308\"\nhsts = \"1d\"\npreset");
    let scene = Scene::new("ways = [\"http-01\"]\ncontact = [\"ops@example.com\"]", &site);
    let edge = &scene.edge;
    // Nobody has come yet: it is ordered ahead.
    scene.wait_event("issued");
    scene.shown("click.test").unwrap();
    let answer = Client::over(connect(edge.https, &scene.client, "click.test").unwrap())
        .get("click.test", "/c/a")
        .unwrap();
    assert_eq!((answer.status, answer.header("location")), (302, Some("https://example.com/a")));
    assert_eq!(edge.get("click.test", "/c/a").status, 308, "a certificate is there");
    assert!(edge.metric("holdfast_acme_proofs_total", "") >= 1.0);

    // Any token is answered for any host, without TLS and with it, never sent to https, and no hit.
    let answer = edge.get("click.test", &format!("{CHALLENGE}token-1_a"));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/octet-stream")));
    let proof = answer.text();
    assert!(proof.starts_with("token-1_a.") && proof.len() > 40, "{proof}");
    assert_eq!(edge.get("nobody.test", &format!("{CHALLENGE}token-1_a")).text(), proof);
    let head = crate::edge::raw(
        edge.http,
        format!("HEAD {CHALLENGE}a HTTP/1.1\r\nHost: click.test\r\n\r\n").as_bytes(),
    )
    .unwrap();
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(edge.get("click.test", &format!("{CHALLENGE}not.a.token")).status, 404);
    assert_eq!(edge.get("nobody.test", &format!("{CHALLENGE}not.a.token")).status, 421);
    edge.wait_count("select count(*) from hits", 1);

    scene.configure(
        "ways = [\"http-01\"]\ncontact = [\"ops@example.com\"]",
        &site.replace("\"click.test\"", "\"click.test\", \"new.test\""),
    );
    scene.wait_shown("new.test");
    assert_eq!(scene.pebble.issued(), 2, "each once");
    assert!(edge.log().contains("no certificate is ordered for a wildcard"), "{}", edge.log());

    let listed = edge.tell(&["certs", "list"]);
    for word in ["click.test", "new.test", "served", "next order"] {
        assert!(listed.contains(word), "{listed}");
    }
    let status = edge.tell(&["status"]);
    assert!(status.contains("2 of 2 names issued by https://localhost"), "{status}");
    assert_eq!(edge.status()["certificates"]["ordered"]["certificates"], 2);
    assert!(edge.metric("holdfast_certificate_end_timestamp_seconds", "") > 1.7e9);
    let private = fs::metadata(edge.path("data/acme")).unwrap().permissions().mode() & 0o777;
    assert_eq!(private, 0o700);
}

#[test]
fn a_customers_domain_is_ordered_when_its_row_comes() {
    let scene = Scene::new("", SITE);
    let edge = &scene.edge;
    scene.wait_event("issued");
    edge.execute("insert into domains (host, site) values ('brand.test', 'shop')");
    wait_for("the second certificate", || (scene.events("issued") >= 2.0).then_some(()));
    scene.shown("brand.test").unwrap();
    let stream = connect(edge.https, &scene.client, "brand.test").unwrap();
    let answer = Client::over(stream).get("brand.test", "/c/a").unwrap();
    assert_eq!((answer.status, answer.header("location")), (302, Some("https://example.com/a")));
    let checked = edge.ask(&["domains", "check", "brand.test", "--json"]);
    let checked: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert!(checked[0]["certificate_until_s"].as_i64().is_some_and(|until| until > 0), "{checked}");

    // Switched off it is served to its end, and not ordered again.
    edge.execute("update domains set disabled = 1");
    wait_for("the end of its orders", || scene.order("brand.test")["due_s"].is_null().then_some(()));
    assert_eq!(scene.pebble.issued(), 2, "each once");
}

#[test]
fn hosts_are_ordered_by_tls_alpn_01_in_handshakes_with_the_authority() {
    let scene = Scene::new("ways = [\"tls-alpn-01\"]", SITE);
    scene.wait_shown("click.test");
    assert!(scene.edge.metric("holdfast_tls_handshakes_total", "outcome=\"challenge\"") >= 1.0);
    assert_eq!(scene.edge.metric("holdfast_acme_proofs_total", ""), 0.0);
    // Whoever pretends to be an authority sees nothing.
    let said = Command::new("openssl")
        .args(["s_client", "-alpn", "acme-tls/1", "-servername", "click.test", "-connect"])
        .arg(scene.edge.https.to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.contains("unrecognized name") && !said.contains("BEGIN CERTIFICATE"), "{said}");
}

/// What the application says that is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    /// Yes to names that begin with `customer`.
    Customers,
    /// Nothing at all, and holds the line.
    Nothing,
}

/// An `ask` address.
struct Application {
    port: u16,
    says: Arc<Mutex<Says>>,
    asked: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
}

impl Application {
    fn start(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let application = Self {
            port: listener.local_addr().unwrap().port(),
            says: Arc::new(Mutex::new(says)),
            asked: Arc::default(),
            ended: Arc::default(),
        };
        let (says, asked, ended) =
            (Arc::clone(&application.says), Arc::clone(&application.asked), Arc::clone(&application.ended));
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                if ended.load(Relaxed) {
                    return;
                }
                asked.fetch_add(1, Relaxed);
                if *says.lock().unwrap() == Says::Nothing {
                    held.push(stream);
                    continue;
                }
                let mut request = Vec::new();
                let mut chunk = [0; 1024];
                while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                    let read = stream.read(&mut chunk).unwrap();
                    request.extend_from_slice(&chunk[..read]);
                }
                let is_customer = String::from_utf8_lossy(&request).contains("domain=customer");
                let status = if is_customer { "204 Yes" } else { "404 No" };
                let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        application
    }

    fn settings(&self) -> String {
        format!("[tls.acme.ask]\nurl = \"http://127.0.0.1:{}/ask?key=secret-1\"\ntimeout = \"1s\"", self.port)
    }

    fn say(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.ended.store(true, Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

#[test]
fn a_customers_name_is_issued_in_its_first_handshake_and_a_strangers_is_not() {
    let application = Application::start(Says::Customers);
    let scene = Scene::new(&application.settings(), SITE);
    let edge = &scene.edge;
    // With a real client, which waits as a browser does.
    let port = edge.https.port();
    let said = Command::new("curl")
        .args(["-sS", "--max-time", "25", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"])
        .arg(scene.pebble.issuer())
        .args(["--resolve", &format!("customer1.example:{port}:127.0.0.1")])
        .arg(format!("https://customer1.example:{port}/c/a"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "421", "no site has it: {}", edge.log());
    // One below a wildcard of a site needs no question.
    let asked = application.asked.load(Relaxed);
    let answer = Client::over(connect(edge.https, &scene.client, "a.wild.test").unwrap())
        .get("a.wild.test", "/c/a")
        .unwrap();
    assert_eq!((answer.status, application.asked.load(Relaxed)), (302, asked));

    for _ in 0..3 {
        assert!(scene.shown("stranger.example").unwrap_err().contains("UnrecognisedName"));
    }
    assert_eq!(application.asked.load(Relaxed), asked + 1, "the refusal is remembered");
    assert_eq!(edge.metric("holdfast_certificate_demands_total", "outcome=\"ready\""), 2.0);
    assert_eq!(edge.metric("holdfast_certificate_demands_total", "outcome=\"refused\""), 3.0);
    // Nothing of a stranger is stored.
    let stored: BTreeSet<String> = fs::read_dir(edge.path("data/acme"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(stored.contains("customer1.example.record"), "{stored:?}");
    assert!(!stored.iter().any(|name| name.contains("stranger")), "{stored:?}");
    let printed = edge.ok(&["check", "--print"]);
    assert!(printed.contains("/ask?***") && !printed.contains("secret-1"), "{printed}");
}

/// A name whose certificate in a file is over counted as one that has its own, and no handshake ordered another.
#[test]
fn a_certificate_that_is_over_is_no_reason_to_order_none() {
    let pebble = Pebble::start();
    let config = ordering(&configuration(SITE), &pebble, (&pebble.http, &pebble.https), "");
    let client = pebble.client();
    let edge = Edge::prepare(&config, LINKS);
    fs::create_dir(edge.path("certs")).unwrap();
    let over = Authority::new().issue_between(&["a.wild.test"], (2020, 2021)).bundle();
    fs::write(edge.path("certs/over.pem"), over).unwrap();
    let mut scene = Scene { edge, pebble, client };
    scene.edge.start();
    scene.shown("a.wild.test").unwrap();
    assert_eq!(scene.edge.metric("holdfast_certificate_demands_total", "outcome=\"ready\""), 1.0);
}

#[test]
fn a_flood_of_unknown_names_while_nobody_answers_leaves_known_names_alone() {
    let application = Application::start(Says::Nothing);
    let scene = Scene::new(&format!("{}\nat_once = 2", application.settings()), SITE);
    scene.wait_shown("click.test");
    // Few handshakes at a time: whoever waits for a certificate must take nobody's place.
    let config = fs::read_to_string(scene.edge.path("holdfast.toml")).unwrap();
    let config = config.replace("[tls]\n", "[tls]\nhandshakes_max = 2\n");
    fs::write(scene.edge.path("holdfast.toml"), config).unwrap();
    scene.edge.tell(&["reload"]);
    let strangers: Vec<_> = (0..8)
        .map(|stranger| {
            let (address, client) = (scene.edge.https, Arc::clone(&scene.client));
            std::thread::spawn(move || {
                for number in 0..40 {
                    let name = format!("n{number}.stranger{stranger}.example");
                    assert!(connect(address, &client, &name).is_err());
                }
            })
        })
        .collect();
    wait_for("a question", || (application.asked.load(Relaxed) > 0).then_some(()));
    let mut served = 0;
    while !strangers.iter().all(|stranger| stranger.is_finished()) {
        scene.shown("click.test").unwrap();
        served += 1;
    }
    strangers.into_iter().for_each(|stranger| stranger.join().unwrap());
    assert!(served > 10, "{served}");
    assert!(application.asked.load(Relaxed) < 40, "the address is not flooded");
    assert_eq!(scene.edge.metric("holdfast_refused_total", "reason=\"handshakes\""), 0.0);
    // A known name without a certificate gets one meanwhile.
    scene.wait_shown("a.wild.test");
    // As soon as somebody answers, questions are put again.
    application.say(Says::Customers);
    scene.wait_shown("customer2.example");
}

#[test]
fn a_restart_with_authority_and_database_down_serves_what_was_issued() {
    let mut scene = Scene::new("", SITE);
    let before = scene.wait_shown("click.test");
    scene.edge.kill();
    scene.pebble.kill();
    fs::rename(scene.edge.database(), scene.edge.path("elsewhere.db")).unwrap();
    scene.edge.start();
    assert_eq!(scene.shown("click.test").unwrap(), before);
    // A name that is ordered meanwhile fails, is told of, and changes nothing for the others.
    scene.configure("", &SITE.replace("\"click.test\"", "\"click.test\", \"new.test\""));
    scene.wait_event("failed_authority");
    assert_eq!(scene.shown("click.test").unwrap(), before);
    let order = wait_for("the failure", || {
        Some(scene.order("new.test")).filter(|order| order["failure"].is_string())
    });
    assert!(order["until_s"].is_null(), "{order}");
    let listed = scene.edge.tell(&["certs", "list"]);
    assert!(listed.contains("WAITING") && listed.contains("nothing is ordered before"), "{listed}");
    assert!(scene.edge.metric("holdfast_acme_paused_until_timestamp_seconds", "") > 1.7e9);
    assert!(scene.edge.tell(&["status"]).contains("PAUSED"));
}

#[test]
fn a_renewal_swaps_under_handshakes_and_none_fails() {
    let scene = Scene::new("", SITE);
    let before = scene.wait_shown("click.test");
    let ended = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let (address, client, ended) = (scene.edge.https, Arc::clone(&scene.client), Arc::clone(&ended));
            std::thread::spawn(move || {
                let mut handshakes = 0;
                while !ended.load(Relaxed) {
                    connect(address, &client, "click.test").unwrap();
                    handshakes += 1;
                }
                handshakes
            })
        })
        .collect();
    let said = scene.edge.tell(&["certs", "renew", "--all"]);
    assert!(said.contains("1 certificate ordered anew"), "{said}");
    wait_for("another certificate", || (scene.shown("click.test").unwrap() != before).then_some(()));
    ended.store(true, Relaxed);
    let handshakes: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert!(handshakes > 10, "{handshakes}");
    let refused = scene.edge.ask(&["certs", "renew", "nobody.test"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no host of a site"));
}

#[test]
fn a_program_that_takes_over_orders_from_then_on_and_the_old_one_no_more() {
    let mut scene = Scene::new("", SITE);
    let before = scene.wait_shown("click.test");
    let mut old = scene.edge.take_child();
    scene.edge.start_with(&["--takeover"]);
    wait_for("the old program to end", || old.try_wait().unwrap());
    assert_eq!(scene.shown("click.test").unwrap(), before);
    scene.edge.tell(&["certs", "renew", "click.test"]);
    wait_for("another certificate", || (scene.shown("click.test").unwrap() != before).then_some(()));
    assert_eq!(scene.pebble.issued(), 2);
}

#[test]
fn a_take_over_that_fails_leaves_the_old_program_ordering() {
    let scene = Scene::new("", SITE);
    scene.wait_shown("click.test");
    let config = fs::read_to_string(scene.edge.path("holdfast.toml")).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (tables, admin) = config.split_once("[admin]\nlisten = \"127.0.0.1:0\"").unwrap();
    let broken = format!("{tables}[admin]\nlisten = \"{}\"{admin}", taken.local_addr().unwrap());
    fs::write(scene.edge.path("holdfast.toml"), broken).unwrap();
    let refused = scene.edge.run(&["serve", "--takeover"]);
    assert!(!refused.status.success(), "{refused:?}");
    fs::write(scene.edge.path("holdfast.toml"), &config).unwrap();
    scene.configure("", &SITE.replace("\"click.test\"", "\"click.test\", \"new.test\""));
    scene.wait_shown("new.test");
    assert_eq!(scene.pebble.issued(), 2);
}

#[test]
fn a_certificate_goes_out_and_comes_in_and_the_account_gets_another_key() {
    let scene = Scene::new("", SITE);
    let edge = &scene.edge;
    scene.wait_shown("click.test");
    let public = edge.ok(&["certs", "export", "click.test"]);
    assert!(public.contains("BEGIN CERTIFICATE") && !public.contains("PRIVATE KEY"), "{public}");
    edge.ok(&["certs", "export", "click.test", "--key", "--output", "both.pem"]);
    let both = fs::read_to_string(edge.path("both.pem")).unwrap();
    assert!(both.contains("PRIVATE KEY") && both.contains(public.trim_end()));
    assert_eq!(fs::metadata(edge.path("both.pem")).unwrap().permissions().mode() & 0o777, 0o600);
    let again = edge.run(&["certs", "export", "click.test", "--key", "--output", "both.pem"]);
    assert!(!again.status.success(), "nothing is written over");
    assert!(!edge.run(&["certs", "export", "nobody.test"]).status.success());

    let said = edge.tell(&["certs", "import", "both.pem"]);
    assert!(said.contains("click.test: its certificate is served"), "{said}");
    let (key, _) = both.split_at(both.find("-----BEGIN CERTIFICATE").unwrap());
    fs::write(edge.path("key.pem"), key).unwrap();
    let refused = edge.ask(&["certs", "import", "key.pem"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("there is no certificate in it"));
    assert!(!edge.log().contains("PRIVATE KEY"));

    let before = fs::read(account(edge)).unwrap();
    edge.tell(&["certs", "change-account-key"]);
    assert_ne!(fs::read(account(edge)).unwrap(), before);
    assert_eq!(scene.events("account_key_changed"), 1.0);
}

#[test]
fn an_account_is_bound_and_a_wrong_key_is_said_to_be_wrong() {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let settings = format!(
        "\"externalAccountBindingRequired\": true, \"externalAccountMACKeys\": {{\"kid-1\": \"{KEY}\"}},"
    );
    let wrong = KEY.replace('z', "a");
    let pebble = Pebble::start_with(&settings);
    let scene = Scene::with(pebble, &format!("eab_kid = \"kid-1\"\neab_key = \"{wrong}\""), SITE);
    wait_for("the failure", || (scene.events("failed_authority") >= 1.0).then_some(()));
    let log = scene.edge.log();
    assert!(log.contains("the binding (EAB) that is configured") && log.contains("\"ERROR\""), "{log}");
    assert!(!log.contains(&wrong));
    assert_eq!(scene.pebble.issued(), 0);

    let mut scene = scene;
    scene.edge.stop();
    fs::write(scene.edge.path("eab"), format!("{KEY}\n")).unwrap();
    let config = ordering(
        &configuration(SITE),
        &scene.pebble,
        (&scene.pebble.http, &scene.pebble.https),
        "eab_kid = \"kid-1\"\neab_key_file = \"eab\"",
    );
    fs::write(scene.edge.path("holdfast.toml"), config).unwrap();
    scene.edge.start();
    scene.wait_shown("click.test");
}

#[test]
fn a_name_that_a_file_is_for_is_not_ordered_until_the_file_is_gone() {
    let pebble = Pebble::start();
    let authority = Authority::new();
    let config = ordering(&configuration(SITE), &pebble, (&pebble.http, &pebble.https), "");
    let mut edge = Edge::prepare(&config, LINKS);
    fs::create_dir(edge.path("certs")).unwrap();
    let pair = authority.issue(&["click.test"]);
    fs::write(edge.path("certs/click.pem"), pair.bundle()).unwrap();
    fs::write(edge.path("certs/other.pem"), authority.issue(&["other.test"]).bundle()).unwrap();
    edge.start();
    let client = pebble.client();
    // Below the wildcard, so that what is ordered shows that something is.
    wait_shown(&edge, &client, "a.wild.test");
    assert_eq!(pebble.issued(), 1);
    assert!(shown(&edge, &client, "click.test").is_err(), "the file's, which this client does not trust");
    fs::remove_file(edge.path("certs/click.pem")).unwrap();
    wait_shown(&edge, &client, "click.test");
}

/// Where an edge keeps its account.
fn account(edge: &Edge) -> PathBuf {
    let mut entries = fs::read_dir(edge.path("data/acme")).unwrap().map(|entry| entry.unwrap());
    let is_account = |name: &str| name.starts_with("account-");
    entries.find(|entry| entry.file_name().to_str().is_some_and(is_account)).unwrap().path()
}

/// The first edge makes the account, which the second one gets.
fn two_edges(cluster: &Cluster, pebble: &Pebble) -> [Edge; 2] {
    let (http, https) = (Port::free(), Port::free());
    let acme = "ways = [\"http-01\"]";
    let one = ordering(&cluster.configuration(SITE), pebble, (&http, &https), acme);
    let mut one = Edge::prepare(&one, LINKS);
    // The authority comes to the other one, whoever orders.
    let two = ordering(&cluster.configuration(SITE), pebble, (&pebble.http, &pebble.https), acme);
    let two = Edge::prepare(&two.replace("edge = \"test\"", "edge = \"two\""), LINKS);
    // Its order fails, for nobody answers yet; its account is there.
    one.start();
    wait_for("the failure", || {
        (one.metric("holdfast_acme_events_total", "event=\"failed_name\"") >= 1.0).then_some(())
    });
    let file = account(&one);
    fs::create_dir(two.path("data/acme")).unwrap();
    fs::copy(&file, two.path("data/acme").join(file.file_name().unwrap())).unwrap();
    [one, two]
}

#[test]
fn two_edges_on_one_database_order_a_name_once_and_both_serve_it() {
    let (cluster, pebble) = (Cluster::start(), Pebble::start());
    let [one, mut two] = two_edges(&cluster, &pebble);
    two.start();
    // Its first try found nobody to answer for it.
    one.tell(&["certs", "renew", "click.test"]);
    let client = pebble.client();
    let both = |name: &str| {
        let shown = [&one, &two].map(|edge| wait_shown(edge, &client, name));
        assert_eq!(shown[0], shown[1], "{name}: one certificate");
    };
    both("click.test");
    assert_eq!(pebble.issued(), 1);
    let sealed =
        cluster.sql("select encode(sealed, 'escape') from holdfast.orders where name = 'click.test'");
    assert!(sealed.len() > 100 && !sealed.contains("PRIVATE"), "{sealed}");

    // One orders what the other does not know yet; the authority comes to the other, which answers.
    let says = |edge: &Edge, what: &str| wait_for(what, || edge.log().contains(what).then_some(()));
    add_hosts(&one, "\"b.test\"");
    says(&one, "b.test: a certificate was issued");
    assert_eq!(one.metric("holdfast_acme_proofs_total", ""), 0.0);
    add_hosts(&two, "\"b.test\"");
    says(&two, "b.test: its certificate comes from another edge");
    both("b.test");

    // Several, by both at once.
    for edge in [&one, &two] {
        add_hosts(edge, "\"c.test\", \"d.test\", \"e.test\"");
    }
    for name in ["c.test", "d.test", "e.test"] {
        both(name);
    }
    assert_eq!(pebble.issued(), 5, "each once");
}

fn add_hosts(edge: &Edge, hosts: &str) {
    let config = fs::read_to_string(edge.path("holdfast.toml")).unwrap();
    let config = config.replace("\"click.test\"", &format!("\"click.test\", {hosts}"));
    fs::write(edge.path("holdfast.toml"), config).unwrap();
    edge.tell(&["reload"]);
}

#[test]
fn orders_wait_for_a_database_that_is_not_to_be_asked_or_lacks_their_table() {
    let (cluster, pebble) = (Cluster::start(), Pebble::start());
    let ports = (&pebble.http, &pebble.https);
    let config = ordering(&cluster.configuration(SITE), &pebble, ports, "");
    let never = config.replace("poll = \"50ms\"", "poll = \"50ms\"\nmigrate = \"never\"");
    let mut edge = Edge::prepare(&never, LINKS);
    // As the release before left it.
    cluster.take_back(1);
    edge.start();
    wait_for("the alarm", || edge.log().contains("run `holdfast migrate`").then_some(()));
    edge.redirect("click.test", "/c/a");
    cluster.wait_count("select count(*) from holdfast.hits", 1);
    assert_eq!(pebble.issued(), 0);
    assert!(edge.metric("holdfast_acme_events_total", "event=\"failed_lock\"") >= 1.0);

    edge.tell(&["window", "begin", "--until", "1h"]);
    edge.ok(&["migrate"]);
    edge.tell(&["certs", "renew", "click.test"]);
    wait_for("the order to wait", || edge.log().contains("down or in a window").then_some(()));
    wait_for("the database to be let go", || (edge.status()["database"]["released"] == true).then_some(()));
    assert_eq!(pebble.issued(), 0);
    edge.tell(&["window", "end"]);
    wait_for("the database to be up", || (edge.status()["database"]["state"] == "up").then_some(()));
    edge.tell(&["certs", "renew", "click.test"]);
    wait_shown(&edge, &pebble.client(), "click.test");
    wait_for("the lock's connection to be closed", || {
        (!cluster.connections().iter().any(|name| name.contains("orders"))).then_some(())
    });
}

#[test]
fn what_is_not_there_yet_does_not_hold_back_the_rest() {
    let (mut pebble, nobody) = (Pebble::start(), Port::free());
    pebble.kill();
    let scene = Scene { client: trusting_nobody(), edge: Edge::prepare(&configuration(SITE), LINKS), pebble };
    let config = ordering(
        &configuration(SITE),
        &scene.pebble,
        (&scene.pebble.http, &scene.pebble.https),
        &format!("demand_wait = \"1s\"\n[tls.acme.ask]\nurl = \"http://127.0.0.1:{}/\"", nobody.number),
    );
    fs::write(scene.edge.path("holdfast.toml"), config).unwrap();
    let mut scene = scene;
    // Ready at once, with nothing on disk and nobody to order from.
    scene.edge.start();
    assert_eq!(scene.edge.redirect("click.test", "/c/a"), "https://example.com/a");
    assert!(scene.shown("click.test").unwrap_err().contains("UnrecognisedName"));
    assert_eq!(get(scene.edge.admin, "localhost", "/ready").unwrap().status, 200);
    // Nor is there anybody to ask.
    assert!(scene.shown("stranger.example").unwrap_err().contains("UnrecognisedName"));
    assert_eq!(scene.edge.metric("holdfast_certificate_demands_total", "outcome=\"no_answer\""), 1.0);
}

fn trusting_nobody() -> Arc<ClientConfig> {
    crate::tls::trusting(rustls::RootCertStore::empty())
}
