//! `holdfast domains check`: does a domain's DNS lead to the edges, is a certificate there, when does it end.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::task::JoinSet;

use super::super::client::Client;
use super::super::running::time;
use super::super::serve;
use super::{Failure, Running, known, output};
use crate::admin::certificates::Listing;

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

/// How one domain stands.
#[derive(Debug, Serialize)]
struct Standing {
    host: String,
    /// As the edge has it: `served`, `disabled`, `absent`, `refused`, or `unknown`.
    edge: String,
    /// `here`, `elsewhere`, `partly`, `nowhere`, or `unexpected` where nobody said what to expect.
    dns: &'static str,
    /// What the name leads to.
    addresses: Vec<IpAddr>,
    /// Last second of the certificate that the edge has for it, Unix.
    certificate_until_s: Option<i64>,
}

impl Standing {
    fn is_well(&self) -> bool {
        matches!(self.edge.as_str(), "served" | "absent")
            && self.dns == "here"
            && self.certificate_until_s.is_some()
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
                .filter(|domain| domain.state != "refused")
                .map(|domain| domain.host.clone())
                .collect()
        } else {
            self.hosts.iter().map(|host| host.trim_end_matches('.').to_ascii_lowercase()).collect()
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::of("cannot ask the resolver", &error))?;
        let (here, found) = runtime.block_on(async {
            let here: BTreeSet<IpAddr> =
                resolve_all(&expected).await.into_iter().flat_map(|(_, found)| found).collect();
            (here, resolve_all(&hosts).await)
        });
        for name in &expected {
            if here.is_empty() {
                output::note(format_args!("{name}, by which clients should reach the edges, leads nowhere"));
            }
        }
        let standings: Vec<Standing> = found
            .into_iter()
            .map(|(host, addresses)| Standing {
                edge: domains
                    .iter()
                    .find(|domain| domain.host == host)
                    .map_or_else(|| "unknown".to_owned(), |domain| domain.state.clone()),
                dns: dns(&addresses, &here, expected.is_empty()),
                certificate_until_s: certificate(&listing, &host),
                addresses,
                host,
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

/// The addresses of each name, in the order of the names; none where it has none or nobody answers in time.
async fn resolve_all(names: &[String]) -> Vec<(String, Vec<IpAddr>)> {
    let mut found = Vec::with_capacity(names.len());
    for some in names.chunks(QUESTIONS) {
        let mut asked = JoinSet::new();
        for (place, name) in some.iter().cloned().enumerate() {
            asked.spawn(async move {
                let answer: Result<io::Result<Vec<SocketAddr>>, _> =
                    tokio::time::timeout(ANSWER_WAIT, async {
                        Ok(tokio::net::lookup_host((name.as_str(), 0)).await?.collect())
                    })
                    .await;
                let addresses: BTreeSet<IpAddr> = match answer {
                    Ok(Ok(addresses)) => addresses.into_iter().map(|address| address.ip()).collect(),
                    Ok(Err(_)) | Err(_) => BTreeSet::new(),
                };
                (place, name, addresses.into_iter().collect())
            });
        }
        let mut answers = asked.join_all().await;
        answers.sort_by_key(|(place, ..)| *place);
        found.extend(answers.into_iter().map(|(_, name, addresses)| (name, addresses)));
    }
    found
}

fn dns(addresses: &[IpAddr], here: &BTreeSet<IpAddr>, is_unsaid: bool) -> &'static str {
    let ours = addresses.iter().filter(|address| here.contains(address)).count();
    match (addresses.len(), ours) {
        (0, _) => "nowhere",
        _ if is_unsaid => "unexpected",
        (_, 0) => "elsewhere",
        (all, ours) if all == ours => "here",
        _ => "partly",
    }
}

/// When the last of the certificates ends that are for `host`.
fn certificate(listing: &Listing, host: &str) -> Option<i64> {
    let above = host.split_once('.').map(|(_, above)| format!("*.{above}"));
    let is_for = |name: &String| name == host || Some(name) == above.as_ref();
    let filed = listing.certificates.iter().filter(|listed| listed.names.iter().any(is_for));
    let ordered = listing.orders.iter().filter(|order| order.name == host).filter_map(|order| order.until_s);
    filed.map(|listed| listed.until_s).chain(ordered).max()
}

fn print(standings: &[Standing]) {
    if standings.is_empty() {
        output::line("no domains");
        return;
    }
    let mut table = output::Table::new(&["host", "edge", "dns", "leads to", "certificate until"]);
    for standing in standings {
        let addresses: Vec<_> = standing.addresses.iter().map(ToString::to_string).collect();
        let until = standing.certificate_until_s.and_then(|until| u64::try_from(until).ok());
        table.row([
            standing.host.clone(),
            standing.edge.clone(),
            standing.dns.to_owned(),
            addresses.join(", "),
            until.map_or_else(|| "NONE".to_owned(), |until| time(until * 1000)),
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

    #[test]
    fn addresses_are_held_against_those_of_the_edges() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let here = BTreeSet::from([ip("192.0.2.1"), ip("2001:db8::1")]);
        assert_eq!(dns(&[ip("192.0.2.1")], &here, false), "here");
        assert_eq!(dns(&[ip("192.0.2.1"), ip("192.0.2.9")], &here, false), "partly");
        assert_eq!(dns(&[ip("192.0.2.9")], &here, false), "elsewhere");
        assert_eq!(dns(&[ip("192.0.2.9")], &BTreeSet::new(), true), "unexpected");
        assert_eq!(dns(&[], &here, false), "nowhere");
    }
}
