//! What a load of domains changes, and what it must not; the file.

use std::path::Path;
use std::time::Duration;

use super::super::snapshot::Damaged;
use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn settings() -> Settings {
    let guard = guard::Settings { forget_after: 30 * DAY, drop_max_ppm: 10_000 };
    Settings { guard, domains_max: 1000, brands_bytes_max: 1000 }
}

impl Domains {
    fn merged<'a>(
        &self,
        rows: impl IntoIterator<Item = Row<'a>>,
        settings: &Settings,
        accepted: Option<&Held>,
        now: UnixMillis,
    ) -> Merged {
        let mut load = self.load(*settings);
        rows.into_iter().for_each(|row| load.row(row));
        load.finish(accepted, now)
    }
}

fn row(host: &str) -> Row<'_> {
    Row { host, site: "customers", namespace: b"", brand: "{}", disabled: false, deleted: false }
}

fn of<'a>(hosts: impl IntoIterator<Item = &'a str>) -> Domains {
    Domains::default().merged(hosts.into_iter().map(row), &settings(), None, NOW).domains
}

fn hosts(domains: &Domains) -> Vec<&str> {
    domains.iter().map(|(host, _)| host).collect()
}

fn absent(domains: &Domains) -> usize {
    domains.iter().filter(|(_, domain)| domain.absent_since.is_some()).count()
}

#[test]
fn hosts_come_in_one_spelling_and_bad_rows_cost_nobody_else() {
    let long = "x".repeat(254);
    let rows = ["Click.Brand.COM.", "bücher.example", "*.example.com", "a b", "", &long, "127.0.0.1:80"];
    let domains = of(rows);
    assert_eq!(hosts(&domains), ["click.brand.com", "xn--bcher-kva.example"]);
    assert_eq!((domains.refused(), domains.refusals().len()), (5, 5));
    assert!(domains.refusals()[0].reason.contains("wildcard"), "{:?}", domains.refusals());
}

#[test]
fn a_bad_row_leaves_its_host_as_it_was() {
    let known = of(["a.example"]);
    let long = "x".repeat(BRAND_BYTES_MAX + 1);
    let merged = known.merged([Row { brand: &long, ..row("a.example") }], &settings(), None, NOW);
    assert_eq!((hosts(&merged.domains), merged.domains.refused()), (vec!["a.example"], 1));
    assert_eq!(merged.domains.get("a.example").unwrap().absent_since, None);
    // In whatever spelling, and a tombstone ends it whatever else stands in it.
    let bad = Row { site: "", ..row("A.Example.") };
    let merged = known.merged([bad], &settings(), None, NOW);
    assert_eq!((hosts(&merged.domains), absent(&merged.domains)), (vec!["a.example"], 0));
    assert!(known.merged([Row { deleted: true, ..bad }], &settings(), None, NOW).domains.is_empty());
}

#[test]
fn disabled_deleted_and_changed_rows_are_taken_at_once() {
    let known = of(["a.example", "b.example", "c.example"]);
    let rows = [
        Row { disabled: true, ..row("a.example") },
        Row { deleted: true, ..row("b.example") },
        Row { site: "other", ..row("c.example") },
    ];
    let merged = known.merged(rows, &settings(), None, NOW);
    assert!(merged.is_change && merged.held.is_none());
    assert_eq!(hosts(&merged.domains), ["a.example", "c.example"]);
    assert!(merged.domains.get("a.example").unwrap().disabled);
    assert_eq!(&*merged.domains.get("c.example").unwrap().site, "other");
    let again = merged.domains.merged(rows, &settings(), None, NOW);
    assert!(!again.is_change);
}

/// A host was renamed to its plain spelling: the tombstone of the old one is the same host, comes later, and
/// took it away.
#[test]
fn a_tombstone_in_another_spelling_takes_no_row_away() {
    let tombstone = Row { deleted: true, ..row("click.brand.test.") };
    for rows in [[row("click.brand.test"), tombstone], [tombstone, row("click.brand.test")]] {
        assert_eq!(
            hosts(&of(["click.brand.test"]).merged(rows, &settings(), None, NOW).domains),
            ["click.brand.test"]
        );
    }
    let gone = of(["click.brand.test"]).merged([tombstone], &settings(), None, NOW);
    assert!(gone.domains.is_empty() && gone.held.is_none());
}

#[test]
fn an_emptied_table_takes_nothing_until_it_is_accepted_and_a_month_has_passed() {
    let known = of(["a.example", "b.example"]);
    let merged = known.merged([], &settings(), None, NOW);
    let held = merged.held.unwrap();
    assert_eq!((held.known, held.newly_absent), (2, 2));
    assert!(!merged.is_change && absent(&merged.domains) == 0);
    // New rows are taken all the same.
    let merged = merged.domains.merged([row("c.example")], &settings(), None, NOW);
    assert_eq!(hosts(&merged.domains), ["a.example", "b.example", "c.example"]);
    let accepted = merged.domains.merged([row("c.example")], &settings(), Some(&held), NOW);
    assert!(accepted.held.is_none());
    assert_eq!((accepted.domains.len(), absent(&accepted.domains)), (3, 2));
    // Whoever comes back is as before.
    let back =
        accepted.domains.merged([row("b.example"), row("c.example")], &settings(), None, NOW.after(DAY));
    assert_eq!((back.domains.len(), absent(&back.domains)), (3, 1));
    let late = NOW.after(31 * DAY);
    let merged = back.domains.merged([row("b.example"), row("c.example")], &settings(), None, late);
    let held = merged.held.unwrap();
    assert_eq!((held.forgotten, merged.domains.len()), (1, 3));
    let accepted =
        merged.domains.merged([row("b.example"), row("c.example")], &settings(), Some(&held), late);
    assert_eq!(hosts(&accepted.domains), ["b.example", "c.example"]);
}

/// Rows that came first, in the order of hosts, were held against those before them only: with each load
/// more names at the front of the alphabet were kept beside all known ones.
#[test]
fn no_more_are_kept_than_allowed_and_known_ones_stay() {
    let settings = Settings { domains_max: 3, ..settings() };
    let known = of(["y.example", "z.example"]);
    let rows = ["a.example", "b.example", "c.example", "y.example", "z.example"];
    let merged = known.merged(rows.map(row), &settings, None, NOW);
    assert_eq!(hosts(&merged.domains), ["a.example", "y.example", "z.example"]);
    assert_eq!(merged.domains.refused(), 2);
    let again = merged.domains.merged(rows.map(row), &settings, None, NOW);
    assert!(!again.is_change);
    // What a load lacks is kept, too, and counts.
    let rows = ["a.example", "b.example", "c.example"];
    let merged = known.merged(rows.map(row), &settings, None, NOW);
    assert_eq!(hosts(&merged.domains), ["a.example", "y.example", "z.example"]);
    // A bound that somebody lowered ends nobody.
    let lowered = Settings { domains_max: 1, ..settings };
    let merged = known.merged(["a.example", "y.example", "z.example"].map(row), &lowered, None, NOW);
    assert_eq!(hosts(&merged.domains), ["y.example", "z.example"]);
}

#[test]
fn equal_brands_are_kept_once_and_all_of_them_are_bounded() {
    let [first, second] = ["1", "2"].map(|name| format!("{{\"name\":\"{}\"}}", name.repeat(90)));
    let settings = Settings { brands_bytes_max: 150, ..settings() };
    let branded = |host, brand| Row { brand, ..row(host) };
    let rows = [
        branded("a.example", &*first),
        branded("b.example", &second),
        branded("c.example", &first),
        branded("d.example", "{}"),
    ];
    let merged = Domains::default().merged(rows, &settings, None, NOW).domains;
    let brand = |host| &merged.get(host).unwrap().brand;
    assert!(Arc::ptr_eq(brand("a.example"), brand("c.example")));
    assert_eq!([&**brand("b.example"), &**brand("d.example")], ["", ""]);
    assert_eq!(merged.refused(), 1);
    let refusal = &merged.refusals()[0];
    assert!(&*refusal.host == "b.example" && refusal.reason.contains("links.brands_max"), "{refusal:?}");
}

/// It held the brand of thousands of customers of one reseller once for each of them.
#[test]
fn the_file_holds_a_shared_brand_once_and_reads_files_that_do_not() {
    let brand = format!("{{\"name\":\"{}\"}}", "n".repeat(60));
    let names: Vec<String> = (0..100).map(|i| format!("a{i}.example")).collect();
    let rows = names.iter().map(|host| Row { brand: &brand, ..row(host) });
    let known = Domains::default().merged(rows, &settings(), None, NOW).domains;
    let bytes = file::encode(&known).unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert_eq!(text.matches("nnnn").count(), 60 / 4, "{text}");
    let read = file::decode(&bytes).unwrap();
    assert_eq!(read.by_host, known.by_host);
    assert!(
        read.iter().all(|(_, domain)| Arc::ptr_eq(&domain.brand, &read.get("a0.example").unwrap().brand))
    );

    let with_head = |version: u32, body: &str| {
        let head = format!(
            "{{\"version\":{version},\"domains\":1,\"crc32c\":{}}}\n",
            crc32c::crc32c(body.as_bytes())
        );
        file::decode(format!("{head}{body}").as_bytes())
    };
    let line = |more: &str| {
        format!(
            "{{\"host\":\"a.example\",\"site\":\"s\",\"namespace\":\"\",\"brand\":\"{{}}\",{more}\"disabled\":false,\"absent_since\":null}}\n"
        )
    };
    assert_eq!(hosts(&with_head(1, &line("")).unwrap()), ["a.example"]);
    let unusable = |version, body: &str| with_head(version, body).unwrap_err().to_string();
    assert!(unusable(3, &line("")).contains("version 3"));
    assert!(unusable(2, &line("\"like\":\"z.example\",")).contains("like z.example"));
    // What a later release wrote stays where that release will look for it.
    let folder = tempfile::tempdir().unwrap();
    let later = folder.path().join("domains.ndjson");
    std::fs::write(&later, "{\"version\":3,\"domains\":0,\"crc32c\":0}\nwhatever\n").unwrap();
    let read = file::read(folder.path(), Damaged::SetAside);
    assert!(read.domains.is_none() && read.faults[0].1.contains("version 3"), "{:?}", read.faults);
    assert!(read.faults[0].0 == later && later.exists());
}

#[test]
fn what_does_not_change_is_shared_by_one_load_and_the_next() {
    let looks = |brand| ["a.example", "b.example"].map(|host| Row { brand, ..row(host) });
    let first = Domains::default().merged(looks("{\"name\":\"A\"}"), &settings(), None, NOW).domains;
    let same = first.merged(looks("{\"name\":\"A\"}"), &settings(), None, NOW);
    let brand = |domains: &Domains, host| domains.get(host).unwrap().brand.as_ptr();
    assert!(!same.is_change);
    assert_eq!(brand(&same.domains, "b.example"), brand(&first, "a.example"));
    let other = first.merged(looks("{\"name\":\"B\"}"), &settings(), None, NOW);
    assert!(other.is_change && brand(&other.domains, "a.example") != brand(&first, "a.example"));
}

#[test]
fn the_file_reads_as_it_was_written_and_damage_costs_one_generation() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (of(["a.example"]), of(["a.example", "b.example"]));
    let read = |folder: &Path| {
        let read = file::read(folder, Damaged::SetAside);
        (read.domains.unwrap_or_default().by_host, read.faults)
    };
    assert!(file::read(folder.path(), Damaged::SetAside).domains.is_none());
    file::write(folder.path(), &first).unwrap();
    file::write(folder.path(), &second).unwrap();
    assert_eq!(read(folder.path()).0, second.by_host);
    let path = folder.path().join("domains.ndjson");
    let good = std::fs::read(&path).unwrap();
    for at in [0, 12, good.len() / 2, good.len() - 2] {
        let mut bad = good.clone();
        bad[at] ^= 4;
        std::fs::write(&path, &bad).unwrap();
        let looked = file::read(folder.path(), Damaged::Leave);
        assert!(looked.faults[0].0.ends_with("domains.ndjson"), "{:?}", looked.faults);
        let (domains, faults) = read(folder.path());
        assert_eq!((domains == first.by_host, faults.len()), (true, 1), "{at}");
        assert!(faults[0].0.ends_with("domains.ndjson.damaged") && faults[0].0.exists());
    }
    std::fs::write(&path, &good[..good.len() - 20]).unwrap();
    assert_eq!(read(folder.path()).0, first.by_host);
}
