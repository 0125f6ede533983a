//! Bounds, memory per link, and what a load leaves of the links that were known.

use std::sync::Arc;
use std::time::Duration;

use super::super::entry::Entry;
use super::super::overlay::Overlay;
use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn settings() -> Settings {
    let guard = guard::Settings { forget_after: 30 * DAY, drop_max_ppm: 10_000 };
    Settings { seed: 1, memory_bytes_max: 1 << 30, looked_up_max: 10, guard }
}

fn row<'a>(token: &'a [u8], url: &'a str) -> Row<'a> {
    let state = State::Live;
    Row { namespace: b"brand", token, url, campaign: b"", append: true, expires_at: None, state }
}

struct Edge {
    namespaces: Namespaces,
    links: Links,
}

impl Edge {
    fn new() -> Self {
        Self { namespaces: Namespaces::default(), links: Links::empty(1) }
    }

    fn load(&mut self, tokens: std::ops::Range<u32>, now: UnixMillis) -> Counts {
        let mut builder = Builder::new(self.links.clone(), self.namespaces.clone(), settings());
        for n in tokens {
            builder.push(&row(&n.to_le_bytes(), "https://example.com/")).unwrap();
        }
        let Finished { table, counts, basis, .. } = builder.finish(now).unwrap();
        self.links = self.links.rebuilt(Arc::new(table), &basis);
        counts
    }

    fn knows(&self, n: u32) -> bool {
        let namespace = self.namespaces.find(b"brand").unwrap();
        self.links.get(namespace, &n.to_le_bytes()).is_some()
    }

    fn look_up(&mut self, n: u32) {
        let namespace = self.namespaces.intern(b"brand").unwrap();
        let entry = Entry::approve(&row(b"t", "https://example.com/"), Origin::LookUp).unwrap();
        let change = Change { namespace, token: n.to_le_bytes().into(), entry: Arc::new(entry) };
        self.links = self.links.with([change]);
    }
}

#[test]
fn an_empty_load_is_held_and_loses_nothing_when_taken() {
    let mut edge = Edge::new();
    assert_eq!(edge.load(0..1000, NOW), Counts { rows: 1000, ..Counts::default() });
    let counts = edge.load(0..0, NOW.after(DAY));
    assert_eq!((counts.known, counts.newly_absent, counts.forgotten), (1000, 1000, 0));
    assert!(matches!(guard::decide(&counts, &settings().guard, None), guard::Verdict::Hold(_)));
    assert!((0..1000).all(|n| edge.knows(n)));

    // What was absent once is not counted again, and comes back without a trace.
    assert_eq!(edge.load(0..500, NOW.after(2 * DAY)).newly_absent, 0);
    assert_eq!(edge.links.table().stats().absent, 500);

    let counts = edge.load(0..500, NOW.after(31 * DAY));
    assert_eq!((counts.forgotten, edge.knows(999)), (0, true));
    let counts = edge.load(0..500, NOW.after(31 * DAY + Duration::from_millis(1)));
    assert_eq!((counts.forgotten, edge.knows(499), edge.knows(999)), (500, true, false));
    assert!(matches!(guard::decide(&counts, &settings().guard, None), guard::Verdict::Hold(_)));
}

#[test]
fn a_clock_far_behind_makes_no_absence_look_old() {
    let mut edge = Edge::new();
    edge.load(0..10, NOW);
    edge.load(0..9, UnixMillis(0));
    edge.load(0..9, UnixMillis(5));
    assert_eq!((edge.load(0..9, NOW).forgotten, edge.knows(9)), (0, true));
    assert_eq!(edge.load(0..9, NOW.after(31 * DAY)).forgotten, 1);
}

#[test]
fn looked_up_links_are_kept_within_their_bound_and_never_hold_a_load() {
    let mut edge = Edge::new();
    edge.load(0..100, NOW);
    (100..115).for_each(|n| edge.look_up(n));
    assert!((100..115).all(|n| edge.knows(n)));
    let counts = edge.load(0..100, NOW);
    assert_eq!((counts.known, counts.newly_absent, counts.look_ups_dropped), (100, 0, 5));
    assert_eq!(edge.links.table().stats().looked_up, 10);
    // Those looked up last stay.
    edge.look_up(200);
    let folded = fold(edge.links.clone(), edge.namespaces.clone(), settings(), NOW).unwrap();
    assert_eq!(folded.counts.look_ups_dropped, 1);
    edge.links = Links::new(Arc::new(folded.table), Overlay::new(1));
    assert!(edge.knows(200));
    // A load that brings one makes it a link like all others.
    edge.load(0..201, NOW);
    assert_eq!(edge.links.table().stats().looked_up, 0);
}

#[test]
fn a_refused_row_leaves_the_link_where_it_led() {
    let mut edge = Edge::new();
    edge.load(0..200, NOW);
    let mut builder = Builder::new(edge.links.clone(), edge.namespaces.clone(), settings());
    for n in 0..200u32 {
        let url = if n == 7 { "javascript:alert(1)" } else { "https://example.com/new" };
        builder.push(&row(&n.to_le_bytes(), url)).unwrap();
    }
    let finished = builder.finish(NOW).unwrap();
    assert_eq!((finished.counts.refused, finished.counts.newly_absent), (1, 1));
    let refusal = &finished.refusals[0];
    assert_eq!(
        (&*refusal.namespace, &*refusal.token, &*refusal.url),
        (&b"brand"[..], &[7, 0, 0, 0][..], "javascript:alert(1)")
    );
    assert_eq!(refusal.reason, Reason::Target(target::Refused::Scheme));
    let Some(Found::Live(link)) =
        finished.table.get(edge.namespaces.find(b"brand").unwrap(), &7u32.to_le_bytes())
    else {
        panic!("link 7 is gone");
    };
    assert_eq!(link.target.as_bytes(), b"https://example.com/");
}

#[test]
fn refusals_are_listed_up_to_their_bound_and_counted_beyond() {
    let mut builder = Builder::new(Links::empty(0), Namespaces::default(), settings());
    let url = format!("ü{}", "x".repeat(9000));
    let long = vec![b'x'; TOKEN_BYTES_MAX + 1];
    for n in 0..REFUSALS_MAX as u32 + 5 {
        builder.push(&row(&n.to_le_bytes(), &url)).unwrap();
    }
    builder.push(&row(b"", "https://example.com/")).unwrap();
    builder.push(&row(&long, "https://example.com/")).unwrap();
    builder.push(&Row { namespace: &[b'n'; 256], ..row(b"t", "https://example.com/") }).unwrap();
    let finished = builder.finish(NOW).unwrap();
    assert_eq!(finished.counts.refused, REFUSALS_MAX as u64 + 8);
    assert_eq!(finished.refusals.len(), REFUSALS_MAX);
    assert!(finished.refusals.iter().all(|refusal| refusal.url.chars().count() == REFUSED_URL_CHARS_MAX));
    assert_eq!(finished.table.stats(), Stats::default());
}

#[test]
fn repaired_and_cut_rows_are_counted_and_parsed_once() {
    let mut builder = Builder::new(Links::empty(0), Namespaces::default(), settings());
    for n in 0..100u32 {
        builder
            .push(&Row { campaign: &[b'c'; 2000], ..row(&n.to_le_bytes(), "https://example.com/ü") })
            .unwrap();
        builder.push(&row(&(1000 + n).to_le_bytes(), "https://example.com/%C3%BC")).unwrap();
    }
    assert_eq!(builder.spellings.len(), 1);
    let finished = builder.finish(NOW).unwrap();
    assert_eq!((finished.counts.repaired, finished.counts.campaigns_cut), (100, 100));
    assert_eq!((finished.table.stats().links, finished.table.stats().targets), (200, 1));
}

#[test]
fn building_ends_where_the_memory_does() {
    let settings = Settings { memory_bytes_max: 100_000, ..settings() };
    let namespaces = Namespaces::default();
    let mut builder = Builder::new(Links::empty(0), namespaces.clone(), settings);
    let fault = (0..10_000u32)
        .find_map(|n| builder.push(&row(&n.to_le_bytes(), &format!("https://example.com/{n}"))).err())
        .unwrap();
    assert!(fault.needed_bytes > 100_000 && fault.needed_bytes < 120_000, "{fault}");
    let mut known = Builder::new(Links::empty(0), namespaces.clone(), self::settings());
    for n in 0..2_000u32 {
        known.push(&row(&n.to_le_bytes(), &format!("https://example.com/{n}"))).unwrap();
    }
    let links = Links::new(Arc::new(known.finish(NOW).unwrap().table), Overlay::new(0));
    assert!(links.bytes() < 100_000);
    assert!(fold(links.clone(), namespaces.clone(), settings, NOW).is_err());
    assert!(Builder::new(links, namespaces, settings).finish(NOW).is_err());
}

/// A million links whose tokens have 17 bytes, with the URL that `url` gives them.
fn million(url: impl Fn(u32) -> String) -> Table {
    let mut builder = Builder::new(Links::empty(0), Namespaces::default(), settings());
    for n in 0..1_000_000u32 {
        let token = format!("2FX5-8PKW-{:07}", n.wrapping_mul(7) % 10_000_000);
        assert_eq!(token.len(), 17);
        builder.push(&row(token.as_bytes(), &url(n))).unwrap();
    }
    let table = builder.finish(NOW).unwrap().table;
    assert_eq!((table.stats().links, table.stats().live), (1_000_000, 1_000_000));
    table
}

#[allow(clippy::print_stdout, reason = "the figures stand in the test's report")]
#[track_caller]
fn check_memory(what: &str, table: &Table, bar: f64, goal: f64) {
    let bytes = table.bytes() as f64 / table.stats().links as f64;
    println!("{what}: {bytes:.1} bytes per link (bar {bar}, goal {goal})");
    assert!(bytes <= goal);
}

#[test]
fn a_million_links_fit_into_little_memory() {
    let distinct = million(|n| {
        format!("https://shop.example.com/2012/summer/products/item-{n:07}?utm_source=mail&utm_id=100001")
    });
    let Some(Found::Live(link)) = distinct.iter().next().map(|listed| listed.found) else { panic!() };
    assert_eq!(link.target.as_bytes().len(), 88);
    check_memory("distinct 88-byte URLs", &distinct, 160.0, 130.0);
    drop(distinct);
    let repeating = million(|n| format!("https://shop.example.com/2012/summer/products/item-{:02}", n % 40));
    assert_eq!(repeating.stats().targets, 40);
    check_memory("40 targets", &repeating, 40.0, 32.0);
}
