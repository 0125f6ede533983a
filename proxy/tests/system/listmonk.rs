//! In front of a listmonk database: its links are read, and its tables are filled as it would fill them.

use std::fs;
use std::sync::Arc;

use crate::cluster::{Cluster, Pooler, USER};
use crate::edge::{Edge, wait_for};
use crate::load::{Ledger, Load, Manner};

const SITE: &str = "[[site]]\nname = \"list\"\nhosts = [\"click.test\"]\npreset = \"listmonk\"\n";
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";
const LINK: &str = "11111111-0000-4000-8000-00000000000a";
const CAMPAIGN: &str = "22222222-0000-4000-8000-00000000000b";
const SUBSCRIBER: &str = "33333333-0000-4000-8000-00000000000c";
const STRANGER: &str = "44444444-0000-4000-8000-00000000000d";

/// The tables that the preset uses, with the columns, keys and references that listmonk gives them, and
/// the rights that `docs/platform-tables.md` asks for.
fn tables() -> String {
    format!(
        "create table settings (key text not null unique, value jsonb not null default '{{}}',
            updated_at timestamptz default now());
        insert into settings (key, value) values
            ('privacy.individual_tracking', 'true'), ('privacy.disable_tracking', 'false');
        create table subscribers (id serial primary key, uuid uuid not null unique, email text not null unique);
        create table campaigns (id serial primary key, uuid uuid not null unique, name text not null,
            created_at timestamptz default now(), updated_at timestamptz default now());
        create table links (id serial primary key, uuid uuid not null unique, url text not null unique,
            created_at timestamptz default now());
        create table campaign_views (id bigserial primary key,
            campaign_id integer not null references campaigns(id) on delete cascade on update cascade,
            subscriber_id integer references subscribers(id) on delete set null on update cascade,
            created_at timestamptz default now());
        create table link_clicks (id bigserial primary key,
            campaign_id integer references campaigns(id) on delete cascade on update cascade,
            link_id integer not null references links(id) on delete cascade on update cascade,
            subscriber_id integer references subscribers(id) on delete set null on update cascade,
            created_at timestamptz default now());
        insert into links (uuid, url) values ('{LINK}', 'https://example.com/offer?x=1');
        insert into campaigns (uuid, name) values ('{CAMPAIGN}', 'spring');
        insert into subscribers (uuid, email) values ('{SUBSCRIBER}', 'somebody@example.com');
        grant select on links, campaigns, subscribers, settings to {USER};
        grant insert on link_clicks, campaign_views to {USER};
        grant usage on all sequences in schema public to {USER};
        grant pg_monitor to {USER};"
    )
}

/// An edge before a listmonk database, ready to be started.
fn prepare(cluster: &Cluster) -> Edge {
    cluster.sql(&tables());
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    let config =
        cluster.configuration(SITE).replace("poll = \"50ms\"", "poll = \"50ms\"\npreset = \"listmonk\"");
    fs::write(folder.path().join("holdfast.toml"), config).unwrap();
    let edge = Edge::in_folder(folder);
    edge.ok(&["migrate", "--create"]);
    edge.ok(&["check", "--connect"]);
    edge
}

fn click(edge: &Edge, campaign: &str, subscriber: &str) -> u16 {
    edge.get("click.test", &format!("/link/{LINK}/{campaign}/{subscriber}")).status
}

fn view(edge: &Edge, campaign: &str, subscriber: &str) {
    let pixel = edge.get("click.test", &format!("/campaign/{campaign}/{subscriber}/px.png"));
    assert_eq!((pixel.status, pixel.header("content-type")), (200, Some("image/png")));
}

/// How many hits were handed to the statements.
const BATCHED: &str = "select coalesce(sum(rows), 0)::bigint from holdfast.batches";
const CLICKS: &str = "select coalesce(c.uuid::text, '-'), coalesce(s.uuid::text, '-') from link_clicks k
    left join campaigns c on c.id = k.campaign_id left join subscribers s on s.id = k.subscriber_id order by k.id";
const VIEWS: &str = "select coalesce(c.uuid::text, '-'), coalesce(s.uuid::text, '-') from campaign_views k
    left join campaigns c on c.id = k.campaign_id left join subscribers s on s.id = k.subscriber_id order by k.id";

#[test]
fn clicks_and_views_are_kept_as_listmonk_keeps_them() {
    let cluster = Cluster::start();
    let mut edge = prepare(&cluster);
    edge.start();
    let known = edge.get("click.test", &format!("/link/{LINK}/{CAMPAIGN}/{SUBSCRIBER}?ignored=1"));
    assert_eq!((known.status, known.header("location")), (307, Some("https://example.com/offer?x=1")));
    // Whoever the campaign and the subscriber are; and a UUID is one in capital letters, too.
    assert_eq!(click(&edge, NOBODY, NOBODY), 307);
    assert_eq!(click(&edge, STRANGER, STRANGER), 307);
    assert_eq!(click(&edge, &CAMPAIGN.to_uppercase(), SUBSCRIBER), 307);
    let capital = edge.get("click.test", &format!("/link/{}/{CAMPAIGN}/{SUBSCRIBER}", LINK.to_uppercase()));
    assert_eq!(capital.status, 307, "found by a look-up");
    assert_eq!(edge.get("click.test", &format!("/link/{STRANGER}/{CAMPAIGN}/{SUBSCRIBER}")).status, 400);
    let head = format!(
        "HEAD /link/{LINK}/{CAMPAIGN}/{SUBSCRIBER} HTTP/1.1\r\nHost: click.test\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(crate::edge::raw(edge.http, head.as_bytes()).unwrap().status, 307);
    for (campaign, subscriber) in [
        (CAMPAIGN, SUBSCRIBER),
        (CAMPAIGN, STRANGER),
        (STRANGER, SUBSCRIBER),
        (NOBODY, SUBSCRIBER),
        (CAMPAIGN, NOBODY),
    ] {
        view(&edge, campaign, subscriber);
    }
    cluster.wait_count(BATCHED, 12);
    let both = format!("{CAMPAIGN}|{SUBSCRIBER}");
    assert_eq!(cluster.sql(CLICKS), [both.as_str(), "-|-", "-|-", &both, &both].join("\n"));
    assert_eq!(cluster.sql(VIEWS), format!("{both}\n{CAMPAIGN}|-"));
    assert_eq!(cluster.count("select count(*) from holdfast.hits"), 0, "the platform's tables have them");

    // What the platform's settings say holds from the next batch on.
    cluster.sql("update settings set value = 'false' where key = 'privacy.individual_tracking'");
    click(&edge, CAMPAIGN, SUBSCRIBER);
    view(&edge, CAMPAIGN, SUBSCRIBER);
    view(&edge, CAMPAIGN, NOBODY);
    cluster.wait_count(BATCHED, 15);
    assert_eq!(cluster.sql(CLICKS).lines().last(), Some(format!("{CAMPAIGN}|-").as_str()));
    assert_eq!(cluster.count("select count(*) from campaign_views where subscriber_id is null"), 3);
    cluster.sql("update settings set value = 'true' where key = 'privacy.disable_tracking'");
    assert_eq!(click(&edge, CAMPAIGN, SUBSCRIBER), 307);
    view(&edge, CAMPAIGN, SUBSCRIBER);
    cluster.wait_count(BATCHED, 17);
    assert_eq!(
        (
            cluster.count("select count(*) from link_clicks"),
            cluster.count("select count(*) from campaign_views")
        ),
        (6, 4)
    );

    let report: serde_json::Value =
        serde_json::from_slice(&edge.run(&["reconcile", "--json"]).stdout).unwrap();
    assert_eq!((&report["balanced"], &report["missing"]), (&true.into(), &0.into()), "{report}");
}

#[test]
fn links_are_followed_and_go_on_without_the_database() {
    let mut cluster = Cluster::start();
    let mut edge = prepare(&cluster);
    edge.start();
    let late = "55555555-0000-4000-8000-00000000000e";
    cluster.sql(&format!("insert into links (uuid, url) values ('{late}', 'https://example.com/late')"));
    // With the link and the campaign of the last minute, which are read once more.
    wait_for("the late link in memory", || {
        (edge.metric("holdfast_links", "place=\"overlay\"") >= 3.0).then_some(())
    });
    let path = |link: &str| format!("/link/{link}/{CAMPAIGN}/{SUBSCRIBER}");
    // Customers' hosts are Holdfast's own table, beside those of the platform.
    cluster.sql("insert into holdfast.domains (host, site) values ('brand.test', 'list')");
    wait_for("the customer's host", || (edge.get("brand.test", "/").status == 404).then_some(()));
    cluster.sql(&format!("update links set url = 'https://example.com/changed' where uuid = '{LINK}'"));
    cluster.kill();
    assert_eq!(edge.get("click.test", &path(late)).header("location"), Some("https://example.com/late"));
    edge.kill();
    edge.start();
    for link in [LINK, late] {
        assert_eq!(edge.get("click.test", &path(link)).status, 307);
    }
    assert_eq!(edge.get("click.test", &path(STRANGER)).status, 503);
    cluster.run();
    cluster.wait_count("select count(*) from link_clicks", 3);
    // The time is that of the click, not of its delivery.
    let before = "select count(*) from link_clicks where created_at < pg_postmaster_start_time()";
    assert_eq!(cluster.count(before), 3);
    // A restart loads everything: what changed without a trace is found.
    edge.stop();
    edge.start();
    wait_for("the changed link", || {
        (edge.get("click.test", &path(LINK)).header("location") == Some("https://example.com/changed"))
            .then_some(())
    });
}

#[test]
fn every_click_is_in_the_platforms_table_once_through_a_crash_of_the_server() {
    let mut cluster = Cluster::start();
    let mut edge = prepare(&cluster);
    edge.start();
    let ledger = Arc::new(Ledger::default());
    let path: &'static str = Box::leak(format!("/link/{LINK}/{CAMPAIGN}/{SUBSCRIBER}").into_boxed_str());
    let load = Load::start(edge.http, 4, Manner::Strict, &ledger, path);
    for _ in 0..2 {
        let seen = ledger.answers();
        wait_for("some clicks", || (ledger.answers() > seen + 1_000).then_some(()));
        cluster.kill();
        wait_for("clicks while it is away", || (ledger.answers() > seen + 2_000).then_some(()));
        cluster.run();
    }
    load.stop();
    let answered = i64::try_from(ledger.answers()).unwrap();
    cluster.wait_count("select count(*) from link_clicks", answered);
    assert_eq!(ledger.failed.load(std::sync::atomic::Ordering::Relaxed), 0);
    let report: serde_json::Value =
        serde_json::from_slice(&edge.run(&["reconcile", "--json"]).stdout).unwrap();
    assert_eq!((&report["balanced"], &report["missing"]), (&true.into(), &0.into()), "{report}");
    assert_eq!(cluster.count("select count(*) from link_clicks"), answered);
}

/// Somebody dumps what he knows, the platform's tables, and leaves Holdfast's books behind.
#[test]
fn a_dump_of_the_platforms_tables_alone_is_asked_about() {
    let cluster = Cluster::start();
    let mut edge = prepare(&cluster);
    edge.start();
    for _ in 0..20 {
        click(&edge, CAMPAIGN, SUBSCRIBER);
    }
    cluster.wait_count("select count(*) from link_clicks", 20);
    edge.tell(&["window", "begin", "--until", "1h"]);
    wait_for("the edge to let go", || cluster.connections().is_empty().then_some(()));
    let dump = cluster.dump(&["--exclude-schema=holdfast"]);
    cluster.recreate();
    cluster.restore(&dump, &[]);
    edge.ok(&["migrate", "--create"]);
    for _ in 0..5 {
        assert_eq!(click(&edge, CAMPAIGN, SUBSCRIBER), 307);
    }
    edge.tell(&["window", "end"]);
    wait_for("the pump to stand still", || {
        (edge.metric("holdfast_delivery_standing", "") >= 1.0).then_some(())
    });
    assert_eq!(cluster.count("select count(*) from link_clicks"), 20, "nothing is doubled");
    edge.tell(&["deliver", "adopt", "--from", "21"]);
    cluster.wait_count("select count(*) from link_clicks", 25);
    // Where only the cursor is lost, the books still say what the platform has.
    cluster.sql("delete from holdfast.cursors");
    wait_for("the pump to stand still again", || {
        (edge.metric("holdfast_delivery_standing", "") >= 1.0).then_some(())
    });
    edge.tell(&["deliver", "adopt", "--from", "21"]);
    click(&edge, CAMPAIGN, SUBSCRIBER);
    cluster.wait_count("select count(*) from link_clicks", 26);
    // Books that were emptied know less than the platform's tables have.
    cluster.sql("truncate holdfast.journals, holdfast.cursors, holdfast.batches");
    wait_for("the pump to stand still once more", || {
        (edge.metric("holdfast_delivery_standing", "") >= 1.0).then_some(())
    });
    edge.tell(&["deliver", "adopt", "--from", "27"]);
    // A journal that nobody was ever given goes there without a question.
    edge.stop();
    edge.start();
    click(&edge, CAMPAIGN, SUBSCRIBER);
    cluster.wait_count("select count(*) from link_clicks", 27);
}

/// Everything at once where nothing that belongs to a session may be used, and with columns of types of
/// the platform's own, which a driver looks up and keeps for a session.
#[test]
fn behind_a_transaction_pooler_it_is_the_same() {
    let cluster = Cluster::start();
    let pooler = Pooler::before(&cluster);
    let mut edge = prepare(&cluster);
    cluster
        .sql("create type season as enum ('spring'); alter table links add season season default 'spring'");
    let config = fs::read_to_string(edge.path("holdfast.toml"))
        .unwrap()
        .replace(&cluster.url(), &pooler.url())
        .replace("poll = \"50ms\"", "poll = \"50ms\"\npooler = \"transaction\"");
    let links = "\n[links]\npreload = \"select uuid as token, url, season as campaign from links\"\n";
    fs::write(edge.path("holdfast.toml"), config + links).unwrap();
    edge.ok(&["check", "--connect"]);
    edge.start();
    let ledger = Arc::new(Ledger::default());
    let path: &'static str = Box::leak(format!("/link/{LINK}/{CAMPAIGN}/{SUBSCRIBER}").into_boxed_str());
    let load = Load::start(edge.http, 4, Manner::Strict, &ledger, path);
    let late = "55555555-0000-4000-8000-00000000000e";
    cluster.sql(&format!("insert into links (uuid, url) values ('{late}', 'https://example.com/late')"));
    for link in [late.to_owned(), LINK.to_uppercase()] {
        let path = format!("/link/{link}/{NOBODY}/{NOBODY}");
        wait_for(&format!("{link}, a new link or a look-up"), || {
            (edge.get("click.test", &path).status == 307).then_some(())
        });
    }
    wait_for("a number of clicks", || (ledger.answers() > 500).then_some(()));
    load.stop();
    let answered = i64::try_from(ledger.answers()).unwrap();
    let ours = "select count(*) from link_clicks where campaign_id is not null";
    cluster.wait_count(ours, answered);
    assert_eq!(edge.metric("holdfast_delivery_failures_total", ""), 0.0);
    assert_eq!(cluster.count(ours), answered);
}

/// An older copy of the whole, books and tables, gets what it misses by itself, of journals that it
/// never heard of, too.
#[test]
fn an_older_copy_gets_what_it_misses_once() {
    let cluster = Cluster::start();
    let mut edge = prepare(&cluster);
    edge.start();
    for _ in 0..10 {
        click(&edge, CAMPAIGN, SUBSCRIBER);
    }
    cluster.wait_count("select count(*) from link_clicks", 10);
    let backup = cluster.dump(&[]);
    for _ in 0..5 {
        click(&edge, CAMPAIGN, SUBSCRIBER);
    }
    edge.stop();
    edge.start();
    for _ in 0..5 {
        click(&edge, CAMPAIGN, SUBSCRIBER);
    }
    cluster.wait_count("select count(*) from link_clicks", 20);
    edge.tell(&["window", "begin", "--until", "1h"]);
    wait_for("the edge to let go", || cluster.connections().is_empty().then_some(()));
    cluster.recreate();
    cluster.restore(&backup, &[]);
    assert_eq!(cluster.count("select count(*) from link_clicks"), 10);
    assert_eq!(click(&edge, CAMPAIGN, SUBSCRIBER), 307);
    edge.tell(&["window", "end"]);
    cluster.wait_count("select count(*) from link_clicks", 21);
    let report: serde_json::Value =
        serde_json::from_slice(&edge.run(&["reconcile", "--json"]).stdout).unwrap();
    assert_eq!((&report["balanced"], &report["missing"]), (&true.into(), &0.into()), "{report}");
    assert_eq!(cluster.count("select count(*) from link_clicks"), 21);
}

/// A link is found under its own namespace only, though the statement does not look at it.
#[test]
fn a_look_up_stays_in_its_namespace() {
    let cluster = Cluster::start();
    let mut edge = prepare(&cluster);
    let config = fs::read_to_string(edge.path("holdfast.toml")).unwrap();
    let more = "\n[links]\nnamespace = \"list\"\n
        [[site]]\nname = \"other\"\nhosts = [\"other.test\"]\npreset = \"listmonk\"\n";
    fs::write(edge.path("holdfast.toml"), config + more).unwrap();
    edge.start();
    let path = format!("/link/{}/{CAMPAIGN}/{SUBSCRIBER}", LINK.to_uppercase());
    assert_eq!(edge.get("click.test", &path).status, 307);
    assert_eq!(edge.get("other.test", &path).status, 400);
    assert_eq!(edge.get("other.test", &path.to_lowercase()).status, 400);
}

#[test]
fn a_poisoned_row_goes_to_rejected_with_the_servers_words_and_stops_nothing() {
    let cluster = Cluster::start();
    let mut edge = prepare(&cluster);
    cluster.sql(
        "create function refuse() returns trigger language plpgsql as $$
            begin if new.campaign_id is null then raise exception 'no campaign, no click'; end if; return new; end $$;
         create trigger refuse before insert on link_clicks for each row execute function refuse()",
    );
    edge.start();
    for n in 0..40 {
        click(&edge, if n == 17 { NOBODY } else { CAMPAIGN }, SUBSCRIBER);
    }
    cluster.wait_count("select count(*) from link_clicks", 39);
    cluster
        .wait_count("select count(*) from holdfast.rejected where reason like '%no campaign, no click%'", 1);
    let report: serde_json::Value =
        serde_json::from_slice(&edge.run(&["reconcile", "--json"]).stdout).unwrap();
    assert_eq!(report["balanced"], true, "{report}");
}

#[test]
fn statements_that_do_not_fit_are_told_before_anything_is_served() {
    let cluster = Cluster::start();
    let edge = prepare(&cluster);
    cluster.sql(
        "alter table link_clicks rename column created_at to clicked_at; alter table links drop column url",
    );
    let told = edge.run(&["check", "--connect"]);
    assert_eq!(told.status.code(), Some(78));
    let text = String::from_utf8_lossy(&told.stderr).into_owned();
    for part in ["links.preload", "links.lookup", "deliver.statements[1]", "\"url\"", "\"created_at\""] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("deliver.statements[2]"), "{text}");
    let refused = edge.run(&["links", "import", "/dev/null"]);
    assert!(!refused.status.success());
}
