//! `holdfast domains check`: does a domain's DNS lead to the edges, is a certificate there, when does it end.

use std::collections::BTreeSet;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::super::client::Client;
use super::super::running::time;
use super::super::serve;
use super::{Failure, Running, known, output};
use crate::admin::certificates::Listing;
use crate::clock;
use crate::route::HostPattern;

/// Arguments of `domains check`.
#[derive(Args, Clone, Debug)]
pub struct Check {
    /// The domains; all that the running edge knows without any
    hosts: Vec<String>,
    /// A name or an address by which clients reach the edges, instead of listen.public; may be repeated
    #[arg(long, value_name = "NAME")]
    expect: Vec<String>,
    #[command(flatten)]
    running: Running,
}

/// Questions to the resolver at the same time.
const QUESTIONS: usize = 16;
/// How long one may take.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// A certificate that ends within this is named; one that is renewed by itself never comes so near.
const SOON_S: i64 = 14 * 86_400;
/// Of short-lived ones the last part of this many.
const SOON_PART: i64 = 6;

/// How the certificate for a domain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Proof {
    Good,
    EndsSoon,
    Expired,
    NotYetValid,
    /// The edge has none that is for this name, whatever else it shows.
    None,
}

/// How one domain stands.
#[derive(Debug, Serialize)]
struct Standing {
    host: String,
    /// As the edge has it: `served`, `disabled`, `absent`, `refused`, or `unknown`.
    edge: String,
    /// `here`, `elsewhere`, `partly`, `nowhere`, `unanswered` where the resolver took too long, or `unexpected`
    /// where nobody said what to expect.
    dns: &'static str,
    /// What the name leads to.
    addresses: Vec<IpAddr>,
    certificate: Proof,
    /// First second of the certificate that the edge has for it, Unix.
    certificate_from_s: Option<i64>,
    /// Its last second.
    certificate_until_s: Option<i64>,
}

impl Standing {
    fn is_well(&self) -> bool {
        matches!(self.edge.as_str(), "served" | "absent")
            && self.dns == "here"
            && self.certificate == Proof::Good
    }
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        let domains = known(&self.running)?;
        let listing: Listing = serde_json::from_value(Client::find(&self.running)?.look("/certificates")?)
            .map_err(|error| Failure::of("the edge is of another release", &error))?;
        let expected = self.expected()?;
        let hosts: Vec<String> = if self.hosts.is_empty() {
            domains
                .iter()
                .filter(|domain| domain.state != "disabled")
                .map(|domain| domain.host.clone())
                .collect()
        } else {
            spelled(&self.hosts)?
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::of("cannot ask the resolver", &error))?;
        let (edges, found) =
            runtime.block_on(async { (resolve_all(&expected).await, resolve_all(&hosts).await) });
        // Without waiting for answers that nobody waits for any more.
        runtime.shutdown_background();
        for (name, _) in expected.iter().zip(&edges).filter(|(_, found)| !matches!(found, Found::At(_))) {
            output::note(format_args!("{name}, by which clients should reach the edges, leads nowhere"));
        }
        let here: BTreeSet<IpAddr> = edges.into_iter().flat_map(Found::addresses).collect();
        let now_s = i64::try_from(clock::now().0 / 1000).unwrap_or(i64::MAX);
        let standings: Vec<Standing> = hosts
            .into_iter()
            .zip(found)
            .map(|(host, found)| {
                let validity = certificate(&listing, &host, now_s);
                Standing {
                    edge: domains
                        .iter()
                        .find(|domain| domain.host == host)
                        .map_or_else(|| "unknown".to_owned(), |domain| domain.state.clone()),
                    dns: dns(&found, &here, expected.is_empty()),
                    certificate: proof(validity, now_s),
                    certificate_from_s: validity.map(|(from, _)| from),
                    certificate_until_s: validity.map(|(_, until)| until),
                    addresses: found.addresses(),
                    host,
                }
            })
            .collect();
        if self.running.json {
            output::json(&standings);
        } else {
            print(&standings);
        }
        if standings.iter().all(Standing::is_well) { Ok(()) } else { Err(Failure::Findings) }
    }

    /// Where the DNS should lead.
    fn expected(&self) -> Result<Vec<String>, Failure> {
        if !self.expect.is_empty() {
            return Ok(self.expect.clone());
        }
        match &self.running.config {
            Some(file) => Ok(serve::load(file)?.listen.public),
            None if std::path::Path::new("holdfast.toml").exists() => {
                Ok(serve::load(std::path::Path::new("holdfast.toml"))?.listen.public)
            }
            None => Ok(Vec::new()),
        }
    }
}

/// Hosts as people write them, each once, in the one spelling in which edges list them.
fn spelled(hosts: &[String]) -> Result<Vec<String>, Failure> {
    let mut spelled = Vec::with_capacity(hosts.len());
    for host in hosts {
        let name = match HostPattern::parse(host) {
            Ok(HostPattern::Exact(name)) => String::from_utf8_lossy(&name).into_owned(),
            Ok(HostPattern::Below(_)) => {
                return Err(Failure::Other(format!(
                    "{host}: a wildcard; name the hosts that are to be checked"
                )));
            }
            Err(fault) => return Err(Failure::Other(format!("{host}: {fault}"))),
        };
        if !spelled.contains(&name) {
            spelled.push(name);
        }
    }
    Ok(spelled)
}

/// What the resolver says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    At(Vec<IpAddr>),
    Nowhere,
    /// It said nothing in time.
    Unanswered,
}

impl Found {
    fn addresses(self) -> Vec<IpAddr> {
        match self {
            Self::At(addresses) => addresses,
            Self::Nowhere | Self::Unanswered => Vec::new(),
        }
    }
}

/// What the resolver says of each name, in the order of the names.
async fn resolve_all(names: &[String]) -> Vec<Found> {
    ask_all(names, ANSWER_WAIT, look_up).await
}

/// Asks for each name; as soon as one question is over the next begins, so a slow one holds up nobody else.
async fn ask_all(names: &[String], wait: Duration, ask: fn(&str) -> Found) -> Vec<Found> {
    let places = Arc::new(Semaphore::new(QUESTIONS));
    let mut asked = JoinSet::new();
    for (at, name) in names.iter().cloned().enumerate() {
        let places = Arc::clone(&places);
        asked.spawn(async move {
            let Ok(place) = places.acquire_owned().await else { return (at, Found::Unanswered) };
            // The system's resolver cannot be told to stop: a question keeps its place until it is over, and time
            // runs only for those that are asked.
            let question = tokio::task::spawn_blocking(move || {
                let found = ask(&name);
                drop(place);
                found
            });
            match tokio::time::timeout(wait, question).await {
                Ok(Ok(found)) => (at, found),
                Ok(Err(_)) | Err(_) => (at, Found::Unanswered),
            }
        });
    }
    let mut answers = asked.join_all().await;
    answers.sort_unstable_by_key(|(at, _)| *at);
    answers.into_iter().map(|(_, found)| found).collect()
}

/// What the system's resolver says where a name does not exist or has no address (glibc's words, then musl's);
/// of anything else it may have more to say another time.
const NO_SUCH_NAME: [&str; 4] = [
    "Name or service not known",
    "No address associated with hostname",
    "Name does not resolve",
    "Name has no usable address",
];

/// Asks the system's resolver, and for a name with a dot without the domains that it would try to append.
fn look_up(name: &str) -> Found {
    let absolute = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(address) => address.to_owned(),
        None if name.parse::<IpAddr>().is_ok() || name.ends_with('.') || !name.contains('.') => {
            name.to_owned()
        }
        None => format!("{name}."),
    };
    match (absolute.as_str(), 0).to_socket_addrs() {
        Ok(found) => {
            let addresses: BTreeSet<IpAddr> = found.map(|at| at.ip()).collect();
            if addresses.is_empty() { Found::Nowhere } else { Found::At(addresses.into_iter().collect()) }
        }
        Err(error) => unresolved(&error.to_string()),
    }
}

fn unresolved(why: &str) -> Found {
    if NO_SUCH_NAME.iter().any(|words| why.contains(words)) { Found::Nowhere } else { Found::Unanswered }
}

fn dns(found: &Found, here: &BTreeSet<IpAddr>, is_unsaid: bool) -> &'static str {
    let addresses = match found {
        Found::At(addresses) => addresses,
        Found::Nowhere => return "nowhere",
        Found::Unanswered => return "unanswered",
    };
    let ours = addresses.iter().filter(|address| here.contains(address)).count();
    match ours {
        _ if is_unsaid => "unexpected",
        0 => "elsewhere",
        ours if ours == addresses.len() => "here",
        _ => "partly",
    }
}

/// First and last second of the certificate that is shown for `host`: as edges choose, one whose dates hold before
/// one whose do not, then one that names it before a wildcard.
fn certificate(listing: &Listing, host: &str, now_s: i64) -> Option<(i64, i64)> {
    let above = host.split_once('.').map(|(_, above)| format!("*.{above}"));
    // How near the nearest of the names is.
    let nearness = |names: &mut dyn Iterator<Item = &String>| {
        names
            .filter_map(|name| {
                (name == host).then_some(2).or_else(|| (Some(name) == above.as_ref()).then_some(1))
            })
            .max()
    };
    let filed = listing
        .certificates
        .iter()
        .filter_map(|listed| Some((nearness(&mut listed.names.iter())?, listed.from_s, listed.until_s)));
    let ordered = listing.orders.iter().filter_map(|order| {
        Some((nearness(&mut std::iter::once(&order.name))?, order.from_s?, order.until_s?))
    });
    filed
        .chain(ordered)
        .max_by_key(|&(near, from, until)| ((from..=until).contains(&now_s), near, until))
        .map(|(_, from, until)| (from, until))
}

fn proof(validity: Option<(i64, i64)>, now_s: i64) -> Proof {
    let Some((from, until)) = validity else { return Proof::None };
    let soon = SOON_S.min((until - from) / SOON_PART);
    match () {
        () if until < now_s => Proof::Expired,
        () if from > now_s => Proof::NotYetValid,
        () if until - now_s < soon => Proof::EndsSoon,
        () => Proof::Good,
    }
}

/// What the table says of a certificate; what is not well stands in capitals.
fn said(standing: &Standing) -> String {
    let at = |second: Option<i64>| {
        second
            .and_then(|second| u64::try_from(second).ok())
            .map_or_else(String::new, |second| time(second * 1000))
    };
    let until = at(standing.certificate_until_s);
    match standing.certificate {
        Proof::Good => until,
        Proof::EndsSoon => format!("{until} ENDS SOON"),
        Proof::Expired => format!("{until} EXPIRED"),
        Proof::NotYetValid => format!("NOT YET VALID, from {}", at(standing.certificate_from_s)),
        Proof::None => "NONE".to_owned(),
    }
}

fn print(standings: &[Standing]) {
    if standings.is_empty() {
        output::line("no domains");
        return;
    }
    let mut table = output::Table::new(&["host", "edge", "dns", "leads to", "certificate until"]);
    for standing in standings {
        let addresses: Vec<_> = standing.addresses.iter().map(ToString::to_string).collect();
        table.row([
            standing.host.clone(),
            standing.edge.clone(),
            standing.dns.to_owned(),
            addresses.join(", "),
            said(standing),
        ]);
    }
    table.print();
    if standings.iter().any(|standing| standing.dns == "unexpected") {
        output::line(
            "say where clients reach the edges, in listen.public or by --expect, to have the DNS judged",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::certificates::Listed;

    const NOW_S: i64 = 1_700_000_000;
    const DAY_S: i64 = 86_400;

    /// A resolver that was down once made every domain look as if its customer had removed it.
    #[test]
    fn only_a_name_that_does_not_exist_leads_nowhere() {
        let said = |why| unresolved(&format!("failed to lookup address information: {why}"));
        for why in
            ["Name or service not known", "No address associated with hostname", "Name does not resolve"]
        {
            assert!(matches!(said(why), Found::Nowhere), "{why}");
        }
        for why in ["Temporary failure in name resolution", "Non-recoverable failure in name resolution", "?"]
        {
            assert!(matches!(said(why), Found::Unanswered), "{why}");
        }
    }

    #[test]
    fn addresses_are_held_against_those_of_the_edges() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let here = BTreeSet::from([ip("192.0.2.1"), ip("2001:db8::1")]);
        let check = |addresses: &[&str], is_unsaid, expected| {
            let found = Found::At(addresses.iter().map(|text| ip(text)).collect());
            assert_eq!(dns(&found, &here, is_unsaid), expected, "{addresses:?}");
        };
        check(&["192.0.2.1"], false, "here");
        check(&["192.0.2.1", "192.0.2.9"], false, "partly");
        check(&["192.0.2.9"], false, "elsewhere");
        check(&["192.0.2.9"], true, "unexpected");
        assert_eq!(dns(&Found::Nowhere, &here, false), "nowhere");
        assert_eq!(dns(&Found::Unanswered, &here, true), "unanswered");
    }

    fn listing(certificates: &[(&[&str], i64, i64)]) -> Listing {
        let listed = |(names, from, until): &(&[&str], i64, i64)| Listed {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            key: "ecdsa".to_owned(),
            from_s: NOW_S + from * DAY_S,
            until_s: NOW_S + until * DAY_S,
            file: String::new(),
        };
        Listing { certificates: certificates.iter().map(listed).collect(), ..Listing::default() }
    }

    /// An expired certificate was as good as any other.
    #[test]
    fn a_certificate_that_is_over_or_ends_soon_or_is_for_another_name_is_not_good() {
        let check = |certificates: &[(&[&str], i64, i64)], host: &str, expected| {
            let found = certificate(&listing(certificates), host, NOW_S);
            assert_eq!(proof(found, NOW_S), expected, "{host}: {certificates:?}");
        };
        check(&[(&["a.test"], -10, 80)], "a.test", Proof::Good);
        check(&[(&["a.test"], -90, -1)], "a.test", Proof::Expired);
        check(&[(&["a.test"], 1, 90)], "a.test", Proof::NotYetValid);
        check(&[(&["a.test"], -300, 13)], "a.test", Proof::EndsSoon);
        // One for six days that has four left is as it should be.
        check(&[(&["a.test"], -2, 4)], "a.test", Proof::Good);
        check(&[(&["b.test"], -10, 80)], "a.test", Proof::None);
        check(&[(&["*.test"], -10, 80)], "a.test", Proof::Good);
        check(&[(&["*.test"], -10, 80)], "b.a.test", Proof::None);
        check(&[(&["*.test"], -10, 80)], "test", Proof::None);
        // An edge shows what holds, whatever else it has, and of that the nearest.
        check(&[(&["a.test"], -90, -1), (&["*.test"], -10, 80)], "a.test", Proof::Good);
        check(&[(&["a.test"], -300, 2), (&["*.test"], -10, 80)], "a.test", Proof::EndsSoon);
    }

    #[test]
    fn hosts_are_taken_as_people_write_them() {
        let check =
            |hosts: &[&str]| spelled(&hosts.iter().map(|&host| host.to_owned()).collect::<Vec<_>>()).ok();
        let hosts = check(&["Click.Brand.test.", "click.brand.test", "bücher.example"]).unwrap();
        assert_eq!(hosts, ["click.brand.test", "xn--bcher-kva.example"]);
        assert_eq!((check(&["*.brand.test"]), check(&["a b"]), check(&["a.test.."])), (None, None, None));
    }

    #[test]
    fn one_question_that_hangs_holds_up_no_other() {
        fn answer(name: &str) -> Found {
            if name.starts_with("slow") {
                std::thread::sleep(Duration::from_secs(2));
            }
            Found::Nowhere
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut names: Vec<String> =
            (0..QUESTIONS as u32 * 20).map(|number| format!("{number}.test")).collect();
        names[0] = "slow.test".to_owned();
        let found = runtime.block_on(ask_all(&names, Duration::from_millis(500), answer));
        runtime.shutdown_background();
        assert_eq!(found.len(), names.len());
        assert_eq!(found[0], Found::Unanswered);
        assert!(found[1..].iter().all(|found| *found == Found::Nowhere));
        // As many that hang as there are places: the others are asked when those are over, and are not late.
        for name in &mut names[..QUESTIONS] {
            *name = "slow.test".to_owned();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let found = runtime.block_on(ask_all(&names, Duration::from_millis(500), answer));
        assert!(found[..QUESTIONS].iter().all(|found| *found == Found::Unanswered));
        assert!(found[QUESTIONS..].iter().all(|found| *found == Found::Nowhere), "{found:?}");
    }
}
