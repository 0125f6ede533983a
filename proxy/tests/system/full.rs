//! The journal is full: people arrive or are refused, as was chosen, and it goes on when there is room.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::edge::{Client, Edge, SITE, configuration, wait_for};

const LINKS: &str = "namespace,token,url\none,a,https://example.com/a\n";

/// A path whose end is recorded whole, so that a click can be made to take kilobytes.
const ROUTE: &str = "[[site.route]]\npath = \"/n/{token}/{noise:rest}\"\nkind = \"click\"\n";

/// Connections that fill the journal, so also the clicks that wait for the disk when it is full.
const CLIENTS: u64 = 4;

/// Small segments, and answers that wait a good while for the disk before they go out unproved.
fn small(when_full: &str) -> String {
    let journal =
        format!("segment = \"1MiB\"\nbytes_max = \"16MiB\"\nwhen_full = \"{when_full}\"\nwait_ms_max = 1000");
    configuration(&format!("{SITE}{ROUTE}")).replace("segment = \"1MiB\"", &journal)
}

/// An edge whose journals lie on a file system of their own, which can be filled to the last byte.
struct Small {
    edge: Edge,
    disk: PathBuf,
}

impl Small {
    fn start(when_full: &str) -> Self {
        let edge = Edge::prepare(&small(when_full), LINKS);
        let disk = edge.path("data/journal");
        fs::create_dir(&disk).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
            .arg(&disk)
            .output()
            .expect("mount");
        assert!(
            mounted.status.success(),
            "this test mounts a file system and needs root: {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        let mut small = Self { edge, disk };
        small.edge.start();
        // Nothing can be delivered, so nothing may be dropped.
        small.edge.tell(&["window", "begin", "--until", "1d", "--reason", "full"]);
        small
    }

    /// Takes all room that is left, then clicks until the journal takes no more.
    fn fill(&self) {
        let mut ballast = fs::File::create(self.disk.join("ballast")).unwrap();
        while ballast.write_all(&[b'x'; 4096]).is_ok() {}
        click_until_degraded(&self.edge);
    }

    fn make_room(&self) {
        fs::remove_file(self.disk.join("ballast")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        self.edge.kill();
        let _ = Command::new("umount").arg("-l").arg(&self.disk).status();
    }
}

/// Text that hardly compresses.
fn noise(state: &mut u64, bytes: usize) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut next = || {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(LETTERS[(*state >> 58) as usize])
    };
    (0..bytes).map(|_| next()).collect()
}

/// Clicks from several connections until the journal takes no more.
fn click_until_degraded(edge: &Edge) {
    let full = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 1..=CLIENTS {
            let full = &full;
            scope.spawn(move || {
                let mut state = seed;
                let mut client = Client::connect(edge.http).unwrap();
                while !full.load(Relaxed) {
                    let path = format!("/n/a/{}", noise(&mut state, 8000));
                    let answer = client.get("click.test", &path).unwrap();
                    assert!(matches!(answer.status, 302 | 503), "{answer:?}");
                }
            });
        }
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| wait_degraded(edge)));
        full.store(true, Relaxed);
        found.unwrap();
    });
}

fn wait_degraded(edge: &Edge) {
    wait_for("the journal to be degraded", || {
        (edge.status()["journal"]["state"] == "degraded").then_some(())
    });
}

fn waived(edge: &Edge) -> f64 {
    edge.metric("holdfast_answers_total", "class=\"waived\"")
}

fn answers(edge: &Edge) -> f64 {
    edge.metric("holdfast_requests_total", "")
}

/// It is written again, and with the database back all that it took is delivered.
fn assert_recovered(edge: &Edge) {
    wait_for("the journal to be written again", || (edge.status()["journal"]["state"] == "up").then_some(()));
    assert_eq!(edge.metric("holdfast_part_up", "journal"), 1.0);
    edge.redirect("click.test", "/c/a?again");
    edge.tell(&["window", "end"]);
    edge.wait_count("select count(*) from hits where query = 'again' and class = 'synced'", 1);
    let report: serde_json::Value = serde_json::from_str(&edge.ok(&["reconcile", "--json"])).unwrap();
    assert_eq!((&report["balanced"], &report["pending"]), (&true.into(), &0.into()), "{report}");
    let promised = edge.metric("holdfast_answers_total", "class=\"synced\"");
    assert!(edge.count("select count(*) from hits") as f64 >= promised, "{promised}: {report}");
}

/// `answered − appended = waived + unrecorded`: whoever waited when it became full was written after all.
fn assert_sums(edge: &Edge) {
    wait_for("the sum of promise 7", || {
        let without_record = answers(edge) - edge.metric("holdfast_appended_events_total", "");
        let counted = edge.metric("holdfast_waived_events_total", "")
            + edge.metric("holdfast_unrecorded_events_total", "");
        (without_record == counted).then_some(())
    });
}

#[test]
fn people_still_arrive_when_the_disk_is_full_and_each_is_counted_as_waived() {
    let small = Small::start("redirect");
    small.fill();
    let edge = &small.edge;
    assert_eq!(edge.metric("holdfast_part_up", "journal"), 0.0);
    let (waived_before, answers_before) = (waived(edge), answers(edge));
    for n in 0..20 {
        assert_eq!(edge.redirect("click.test", &format!("/c/a?full={n}")), "https://example.com/a");
    }
    let pixel = edge.get("click.test", "/o/x");
    assert_eq!((pixel.status, pixel.body.len()), (200, 43));
    assert_eq!((waived(edge) - waived_before, answers(edge) - answers_before), (21.0, 21.0));
    assert!(edge.metric("holdfast_waived_events_total", "") >= 21.0, "{}", edge.metrics());
    let screen = edge.tell(&["status"]);
    assert!(screen.contains("degraded") && screen.contains("the disk is full"), "{screen}");
    wait_for("the log to say so", || edge.log().contains("the journal cannot be written").then_some(()));
    assert_eq!(crate::edge::get(edge.admin, "localhost", "/ready").unwrap().status, 200, "links work");

    small.make_room();
    assert_recovered(edge);
    assert_eq!(
        edge.count("select count(*) from hits where query like 'full=%'"),
        0,
        "waived is not recorded"
    );
    let after = waived(edge);
    edge.redirect("click.test", "/c/a");
    assert_eq!(waived(edge), after, "nothing is waived any more");
    assert_sums(edge);
}

#[test]
fn clicks_are_refused_with_a_page_when_that_is_chosen() {
    let small = Small::start("refuse");
    small.fill();
    let edge = &small.edge;
    let answered = answers(edge);
    let refused = edge.metric("holdfast_refused_total", "reason=\"journal\"");
    let answer = edge.get("click.test", "/c/a?refused");
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("take your request right now"), "{}", answer.text());
    assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(edge.metric("holdfast_refused_total", "reason=\"journal\""), refused + 1.0);
    assert_eq!(answers(edge), answered, "a refused click is no hit");
    // Those that waited when it became full are not refused any more when their time is up.
    assert!(waived(edge) <= CLIENTS as f64, "{}", waived(edge));

    // An image is no link: a reader of mail sees no error, and a page needs no record to be right.
    assert_eq!(edge.get("click.test", "/o/x").status, 200);
    let nobody = edge.get("click.test", "/c/nobody");
    assert!(!nobody.text().contains("take your request right now"), "{}", nobody.text());

    small.make_room();
    assert_recovered(edge);
    assert_eq!(edge.count("select count(*) from hits where query = 'refused'"), 0);
    assert_sums(edge);
}

#[test]
fn a_journal_at_its_bound_drops_what_was_delivered_and_goes_on() {
    let edge = Edge::with(&small("redirect"), LINKS);
    edge.tell(&["window", "begin", "--until", "1d", "--reason", "full"]);
    click_until_degraded(&edge);
    let reason = edge.status()["journal"]["reason"].clone();
    // Compressing what lies there may have made room again by now.
    assert!(reason.is_null() || reason.as_str().unwrap().contains("journal.bytes_max"), "{reason}");
    edge.tell(&["window", "end"]);
    assert_sums(&edge);
    wait_for("the journal to be written again", || (edge.status()["journal"]["state"] == "up").then_some(()));
    edge.redirect("click.test", "/c/a?again");
    edge.wait_count("select count(*) from hits where query = 'again' and class = 'synced'", 1);
    let report: serde_json::Value = serde_json::from_str(&edge.ok(&["reconcile", "--json"])).unwrap();
    assert_eq!(report["balanced"], true, "{report}");
    let bytes = edge.metric("holdfast_journal_bytes", "");
    assert!(bytes <= f64::from(16 << 20), "{bytes}");
}

#[test]
fn a_site_that_fills_its_share_leaves_the_rest_to_others() {
    const OTHER: &str = "[[site]]\nname = \"other\"\nhosts = [\"other.test\"]\nnamespace = \"one\"\n\
                         [[site.route]]\npath = \"/c/{token}\"\nkind = \"click\"\n";
    let config = small("redirect").replace("when_full", "site_share = \"10%\"\nwhen_full");
    let edge = Edge::with(&format!("{config}{OTHER}"), LINKS);
    edge.tell(&["window", "begin", "--until", "1d", "--reason", "share"]);
    let unrecorded =
        |site: &str| edge.metric("holdfast_unrecorded_events_total", &format!("site=\"{site}\""));
    // 4 MB of 16, of which a site may have 1.6.
    let (mut client, mut state) = (Client::connect(edge.http).unwrap(), 1);
    for _ in 0..500 {
        let answer = client.get("click.test", &format!("/n/a/{}", noise(&mut state, 8000))).unwrap();
        assert_eq!((answer.status, answer.header("location")), (302, Some("https://example.com/a")));
    }
    wait_for("the alarm", || edge.log().contains("fills its share of the journal").then_some(()));

    // Who clicks arrives at either site; only the other's hits are recorded.
    let before = unrecorded("shop");
    for n in 0..20 {
        assert_eq!(edge.redirect("click.test", &format!("/c/a?lost={n}")), "https://example.com/a");
        assert_eq!(edge.redirect("other.test", &format!("/c/a?kept={n}")), "https://example.com/a");
    }
    assert_eq!((unrecorded("shop") - before, unrecorded("other")), (20.0, 0.0));
    assert_sums(&edge);

    // With what it has delivered, it is within its share again.
    edge.tell(&["window", "end"]);
    wait_for("the end of the alarm", || {
        edge.log().contains("within its share of the journal again").then_some(())
    });
    edge.redirect("click.test", "/c/a?again");
    edge.wait_count("select count(*) from hits where query = 'again' and class = 'synced'", 1);
    edge.wait_count("select count(*) from hits where query like 'kept=%' and class = 'synced'", 20);
    assert_eq!(edge.count("select count(*) from hits where query like 'lost=%'"), 0);
    assert_sums(&edge);
}
