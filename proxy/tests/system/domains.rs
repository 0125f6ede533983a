//! Customers' hosts come from the database, go again, and survive what happens to it.

use crate::cluster::{Cluster, USER};
use crate::edge::{Edge, SITE, configuration, wait_for};

const LINKS: &str = "namespace,token,url\none,a,https://example.com/one\ntwo,a,https://example.com/two\n\
    three,a,https://example.com/three\n";

fn edge() -> Edge {
    Edge::with(&configuration(SITE), LINKS)
}

fn import(edge: &Edge, rows: &str) -> String {
    std::fs::write(edge.path("domains.csv"), format!("host,site,namespace,brand,disabled\n{rows}")).unwrap();
    edge.ok(&["domains", "import", "domains.csv"])
}

#[track_caller]
fn wait_status(edge: &Edge, host: &str, status: u16) {
    wait_for(&format!("{status} of {host}"), || (edge.get(host, "/c/a").status == status).then_some(()));
}

fn listed(edge: &Edge, host: &str) -> serde_json::Value {
    let all: serde_json::Value = serde_json::from_str(&edge.tell(&["domains", "list", "--json"])).unwrap();
    let found = all.as_array().unwrap().iter().find(|domain| domain["host"] == host);
    found.cloned().unwrap_or(serde_json::Value::Null)
}

#[test]
fn a_row_is_answered_for_within_seconds_and_stops_as_fast() {
    let edge = edge();
    assert_eq!(edge.get("click.brand.test", "/c/a").status, 421);
    let said = import(&edge, "Click.Brand.test.,shop,,,\n");
    assert!(said.contains("1 domain read: 1 new"), "{said}");
    wait_status(&edge, "click.brand.test", 302);
    assert_eq!(edge.redirect("CLICK.brand.test:80", "/c/a"), "https://example.com/one");
    assert!(import(&edge, "click.brand.test,shop,,{},false\n").contains("0 changed, 1 as before"));

    edge.execute("update domains set disabled = 1 where host = 'click.brand.test'");
    wait_status(&edge, "click.brand.test", 421);
    assert_eq!(listed(&edge, "click.brand.test")["state"], "disabled");
    edge.execute("update domains set disabled = 0 where host = 'click.brand.test'");
    wait_status(&edge, "click.brand.test", 302);
    edge.execute("update domains set host = 'links.brand.test' where host = 'click.brand.test'");
    wait_status(&edge, "links.brand.test", 302);
    assert_eq!(edge.get("click.brand.test", "/c/a").status, 421);
    edge.execute("delete from domains where host = 'links.brand.test'");
    wait_status(&edge, "links.brand.test", 421);
    assert_eq!(edge.redirect("click.test", "/c/a"), "https://example.com/one");
}

#[test]
fn each_domain_has_its_namespace_and_its_look() {
    let edge = edge();
    let brand = r##""{""name"":""Blume & Co"",""colour"":""#ff8800"",""language"":""de""}""##;
    import(&edge, &format!("two.test,shop,two,,\nthree.test,shop,three,{brand},\nsame.test,shop,,,\n"));
    wait_status(&edge, "three.test", 302);
    assert_eq!(edge.redirect("two.test", "/c/a"), "https://example.com/two");
    assert_eq!(edge.redirect("three.test", "/c/a"), "https://example.com/three");
    assert_eq!(edge.redirect("same.test", "/c/a"), "https://example.com/one");
    let page = edge.get("three.test", "/c/unknown");
    assert_eq!((page.status, page.header("content-language")), (404, Some("de")));
    assert!(page.text().contains("Blume &amp; Co") && page.text().contains("%23ff8800"), "{}", page.text());
    let page = edge.get("two.test", "/c/unknown");
    assert!(page.text().contains("shop") && !page.text().contains("Blume"), "{}", page.text());
    wait_for("the hits", || {
        let sql =
            "select count(*) from hits where host = 'three.test' and namespace = 'three' and site = 'shop'";
        (edge.count(sql) >= 2).then_some(())
    });
}

#[test]
fn a_domain_is_nearer_than_a_wildcard_and_the_configuration_nearer_than_a_domain() {
    let edge = edge();
    import(&edge, "own.wild.test,shop,two,,\noff.wild.test,shop,,,true\n");
    edge.execute("insert into domains (host, site, namespace) values ('click.test', 'shop', 'three')");
    wait_for("the domain", || {
        (edge.get("own.wild.test", "/c/a").header("location") == Some("https://example.com/two"))
            .then_some(())
    });
    wait_status(&edge, "off.wild.test", 421);
    assert_eq!(edge.redirect("other.wild.test", "/c/a"), "https://example.com/one");
    wait_for("the refusal", || {
        (listed(&edge, "click.test")["reason"].as_str()?.contains("configuration")).then_some(())
    });
    assert_eq!(edge.redirect("click.test", "/c/a"), "https://example.com/one");
}

#[test]
fn rows_that_cannot_be_taken_cost_nobody_else_and_are_listed() {
    let mut edge = edge();
    edge.execute(
        "insert into domains (host, site, brand) values ('good.test', 'shop', '{}'), ('later.test', 'later', '{}'),
         ('a b', 'shop', '{}'), ('*.sub.test', 'shop', '{}'), ('gaudy.test', 'shop', '{\"colour\":\"red\"}')",
    );
    wait_status(&edge, "good.test", 302);
    wait_status(&edge, "gaudy.test", 302);
    assert_eq!(edge.get("later.test", "/c/a").status, 421);
    for (host, reason) in
        [("a b", "host"), ("*.sub.test", "wildcard"), ("gaudy.test", "brand"), ("later.test", "site")]
    {
        let found = listed(&edge, host);
        assert!(found["reason"].as_str().unwrap_or_default().contains(reason), "{host}: {found}");
    }
    assert_eq!(edge.status()["domains"]["refused"], 4);
    // Another site of that name, by a reload.
    let more = "[[site]]\nname = \"later\"\nhosts = [\"later-own.test\"]\nnamespace = \"two\"\npreset = \"dotdigital\"\n[[site.route]]\npath = \"/c/{token}\"\n";
    std::fs::write(edge.path("holdfast.toml"), configuration(&format!("{SITE}{more}"))).unwrap();
    edge.tell(&["reload"]);
    assert_eq!(edge.redirect("later.test", "/c/a"), "https://example.com/two");
    assert_eq!(edge.redirect("good.test", "/c/a"), "https://example.com/one");
    edge.stop();
}

#[test]
fn an_import_with_faults_names_the_lines_and_imports_nothing() {
    let edge = edge();
    let rows = "host,site,brand\ngood.test,shop,\n*.a.test,shop,\nb.test,nobody,\nclick.test,shop,\n\
        GOOD.test.,shop,\nc.test,shop,red\n,shop,\n";
    std::fs::write(edge.path("faulty.csv"), rows).unwrap();
    let output = edge.run(&["domains", "import", "faulty.csv"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in [
        "faulty.csv:3",
        "wildcard",
        "faulty.csv:4",
        "\"nobody\"",
        "faulty.csv:5",
        "configuration",
        "faulty.csv:6",
        "line 2",
        "faulty.csv:7",
        "brand",
        "faulty.csv:8",
        "6 rows",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(edge.count("select count(*) from domains"), 0);
    edge.ok(&["domains", "import", "--skip-bad", "faulty.csv"]);
    wait_status(&edge, "good.test", 302);
    // What is exported can be imported.
    for format in ["csv", "tsv", "ndjson"] {
        let exported = edge.ok(&["domains", "export", "--format", format]);
        std::fs::write(edge.path(&format!("again.{format}")), &exported).unwrap();
        let said = edge.ok(&["domains", "import", &format!("again.{format}")]);
        assert!(
            said.contains("1 domain read: 0 new, 0 changed, 1 as before"),
            "{format}: {said}\n{exported}"
        );
    }
    for (name, content, part) in [
        ("latin.csv", &b"host,site\n\xe9.test,shop\n"[..], "latin.csv:2"),
        ("columns.csv", b"host\na.test\n", "\"site\" is missing"),
        ("ragged.csv", b"host,site\na.test\n", "ragged.csv:2"),
        ("odd.ndjson", b"{\"host\":\"a.test\",\"site\":\"shop\",\"color\":1}\n", "odd.ndjson:1"),
    ] {
        std::fs::write(edge.path(name), content).unwrap();
        let output = edge.run(&["domains", "import", name]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(part), "{name}: {said}");
    }
}

#[test]
fn one_host_in_many_spellings_is_one_and_those_of_the_configuration_are_refused() {
    let site = SITE.replace("hosts = [", "hosts = [\"straße.test\", ");
    let edge = Edge::with(&configuration(&site), LINKS);
    let long = format!("{{\"host\":\"long.test\",\"site\":\"shop\",\"brand\":\"{}\"}}", "x".repeat(200_000));
    let rows = [
        "\u{feff}{\"host\":\"bücher.test\",\"site\":\"shop\"}",
        "{\"host\":\"BÜCHER.Test.\",\"site\":\"shop\"}",
        "{\"host\":\"xn--bcher-kva.test\",\"site\":\"shop\"}",
        "{\"host\":\"Straße.test.\",\"site\":\"shop\"}",
        "{\"host\":\"XN--strae-oqa.test\",\"site\":\"shop\"}",
        "{\"host\":\"CLICK.test.\",\"site\":\"shop\"}",
        "{\"host\":\"*.bücher.test\",\"site\":\"shop\"}",
        "{\"host\":\"own.wild.test\",\"site\":\"shop\"}",
        "{\"host\":\"OWN.wild.test.\",\"site\":\"shop\"}",
        "{\"host\":\"own.wild.test..\",\"site\":\"shop\"}",
        "{\"host\":\"a.test:443\",\"site\":\"shop\"}",
        &long,
        "{\"host\":\"after.test\",\"site\":\"shop\"}",
    ];
    std::fs::write(edge.path("spelled.ndjson"), rows.join("\n")).unwrap();
    let output = edge.run(&["domains", "import", "spelled.ndjson"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let faults: Vec<&str> = said.lines().filter(|line| line.starts_with("spelled.ndjson:")).collect();
    for (line, part) in [
        (2, "line 1, too"),
        (3, "line 1, too"),
        (4, "configuration"),
        (5, "configuration"),
        (6, "configuration"),
        (7, "wildcard"),
        (9, "line 8, too"),
        (10, "own.wild.test.."),
        (11, "port"),
        (12, "bytes"),
    ] {
        let begin = format!("spelled.ndjson:{line}: ");
        let fault = faults.iter().find(|fault| fault.starts_with(&begin));
        assert!(fault.is_some_and(|fault| fault.contains(part)), "{line}: {part}: {said}");
    }
    assert_eq!(faults.len(), 10, "{said}");
    assert_eq!(edge.count("select count(*) from domains"), 0);
    let done = edge.ok(&["domains", "import", "--skip-bad", "spelled.ndjson"]);
    assert!(done.contains("3 domains read: 3 new") && done.contains("10 rows passed over"), "{done}");
    wait_status(&edge, "after.test", 302);
    wait_status(&edge, "xn--bcher-kva.test", 302);
}

#[test]
fn a_restart_in_an_outage_knows_what_came_two_seconds_before() {
    let mut edge = edge();
    import(&edge, "brand.test,shop,two,,\n");
    wait_status(&edge, "brand.test", 302);
    wait_for("the file of domains", || edge.path("data/links/domains.ndjson").exists().then_some(()));
    edge.kill();
    std::fs::rename(edge.database(), edge.path("away.db")).unwrap();
    edge.start();
    assert_eq!(edge.redirect("brand.test", "/c/a"), "https://example.com/two");
    edge.kill();
    // A damaged file costs what came since the one before it, and the edge starts.
    std::fs::write(edge.path("data/links/domains.ndjson"), "{\"version\":1,\"domains\":0,\"crc32c\":1}\n")
        .unwrap();
    edge.start();
    assert!(edge.path("data/links/domains.ndjson.damaged").exists());
    assert_eq!(edge.redirect("click.test", "/c/a"), "https://example.com/one");
    std::fs::rename(edge.path("away.db"), edge.database()).unwrap();
    wait_status(&edge, "brand.test", 302);
}

/// The export held links alone, so a new edge that was started in an outage answered 421 for every customer.
#[test]
fn domains_move_to_another_edge_with_the_links() {
    let mut edge = edge();
    edge.ok(&["links", "snapshot", "export", "without.links"]);
    import(&edge, "brand.test,shop,two,\"{\"\"name\"\":\"\"Blume\"\"}\",\n");
    wait_status(&edge, "brand.test", 302);
    wait_for("the file of domains", || edge.path("data/links/domains.ndjson").exists().then_some(()));
    let said = edge.ok(&["links", "snapshot", "export", "moved.links"]);
    assert!(said.starts_with("3 links, 1 domain, "), "{said}");
    edge.stop();

    let mut other = Edge::prepare(&configuration(SITE), "namespace,token,url\none,z,https://example.com/z\n");
    for file in ["moved.links", "without.links"] {
        crate::edge::copy(&edge.path(file), &other.path(file));
    }
    // One that was cut off or damaged is refused whole.
    let bytes = std::fs::read(other.path("moved.links")).unwrap();
    let mut flipped = bytes.clone();
    flipped[bytes.len() - 60] ^= 1;
    for bad in [&bytes[..bytes.len() - 10], &flipped] {
        std::fs::write(other.path("bad.links"), bad).unwrap();
        let output = other.run(&["links", "snapshot", "import", "bad.links"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains("bad.links"), "{said}");
        assert!(!other.path("data/links/domains.ndjson").exists());
    }
    let said = other.ok(&["links", "snapshot", "import", "moved.links"]);
    assert!(said.contains("3 links, 1 domain of the file"), "{said}");
    std::fs::remove_file(other.database()).unwrap();
    other.start();
    assert_eq!(other.redirect("brand.test", "/c/a"), "https://example.com/two");
    assert!(other.get("brand.test", "/c/unknown").text().contains("Blume"));
    other.stop();

    // An export without domains, as those of old are, takes none away.
    let said = other.ok(&["links", "snapshot", "import", "without.links"]);
    assert!(said.contains("those that are here stay"), "{said}");
    other.start();
    assert_eq!(other.redirect("brand.test", "/c/a"), "https://example.com/two");
    assert_eq!(other.redirect("click.test", "/c/a"), "https://example.com/one");
}

#[test]
fn an_emptied_table_takes_no_domain_away() {
    let edge = edge();
    import(&edge, "a.test,shop,,,\nb.test,shop,,,\n");
    wait_status(&edge, "b.test", 302);
    // Without tombstones, as where a half-restored database comes back.
    edge.execute("begin immediate; delete from domains; delete from domains; commit");
    wait_for("the held load", || (edge.metric("holdfast_domains_load_held", "") == 1.0).then_some(()));
    assert!(edge.tell(&["status"]).contains("a load lacks 2 of 2 domains"));
    assert_eq!((edge.get("a.test", "/c/a").status, edge.get("b.test", "/c/a").status), (302, 302));
    edge.tell(&["links", "accept"]);
    wait_for("the accepted load", || {
        (edge.metric("holdfast_domains", "state=\"absent\"") == 2.0).then_some(())
    });
    // Accepted, they go on for links.forget_after.
    assert_eq!(edge.get("a.test", "/c/a").status, 302);
    assert_eq!(edge.metric("holdfast_domains_load_held", ""), 0.0);
}

#[test]
fn no_more_domains_are_taken_than_allowed() {
    let edge = Edge::with(&configuration(&format!("[links]\ndomains_max = 2\n{SITE}")), LINKS);
    import(&edge, "a.test,shop,,,\nb.test,shop,,,\nc.test,shop,,,\n");
    wait_status(&edge, "b.test", 302);
    assert_eq!(edge.get("c.test", "/c/a").status, 421);
    assert!(listed(&edge, "c.test")["reason"].as_str().unwrap().contains("domains_max"));
}

#[test]
fn a_check_says_where_the_dns_leads_and_whether_a_certificate_is_there() {
    let edge = edge();
    import(&edge, "localhost,shop,,,\nnowhere.invalid,shop,,,\n");
    wait_status(&edge, "localhost", 302);
    let output = edge.ask(&["domains", "check", "--json", "--expect", "localhost"]);
    assert_eq!(output.status.code(), Some(3), "no certificate is there");
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&found[0]["host"], &found[0]["edge"], &found[0]["dns"]),
        (&"localhost".into(), &"served".into(), &"here".into())
    );
    assert!(found[0]["certificate_until_s"].is_null() && found[0]["certificate"] == "none");
    // The same names as people write them.
    let output =
        edge.ask(&["domains", "check", "--json", "LocalHost.", "localhost", "--expect", "localhost"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((found.as_array().unwrap().len(), &found[0]["edge"]), (1, &"served".into()), "{found}");
    let output = edge.ask(&["domains", "check", "*.test"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let output = edge.ask(&["domains", "check", "--json", "--expect", "localhost"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found[1]["dns"], &found[1]["addresses"]), (&"nowhere".into(), &serde_json::json!([])));
    let output = edge.ask(&["domains", "check", "localhost", "--expect", "192.0.2.1"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("elsewhere") && said.contains("NONE"), "{said}");
    // What was switched off on purpose is not looked at; what nobody answers for is.
    edge.execute("insert into domains (host, site, disabled) values ('off.invalid', 'shop', 1), ('lost.invalid', 'later', 0)");
    wait_for("the rows", || (edge.status()["domains"]["refused"] == 1).then_some(()));
    let output = edge.ask(&["domains", "check", "--json", "--expect", "localhost"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let looked: Vec<_> = found.as_array().unwrap().iter().map(|one| (&one["host"], &one["edge"])).collect();
    let refused = (&"lost.invalid".into(), &"refused".into());
    assert!(looked.len() == 3 && looked.contains(&refused), "{found}");
}

/// Reading them once took longer than a statement may, and the database counted as down: nothing was delivered.
#[test]
fn domains_that_nobody_can_read_stop_neither_links_nor_delivery() {
    let cluster = Cluster::start();
    let config = cluster.configuration(SITE).replace("poll = \"50ms\"", "poll = \"50ms\"\ntimeout = \"1s\"");
    let edge = Edge::with(&config, LINKS);
    cluster.sql("insert into holdfast.domains (host, site) values ('known.test', 'shop')");
    wait_status(&edge, "known.test", 302);
    let lock = cluster.hold("lock table holdfast.domains in access exclusive mode");
    // Whoever imports a link tells all that something changed.
    edge.import("namespace,token,url\none,late,https://example.com/late\n");
    wait_for("the lock to be felt", || (edge.metric("holdfast_domains_failing", "") == 1.0).then_some(()));
    wait_for("the late link", || (edge.get("known.test", "/c/late").status == 302).then_some(()));
    edge.import("namespace,token,url\none,later,https://example.com/later\n");
    wait_for("the later link", || (edge.get("known.test", "/c/later").status == 302).then_some(()));
    wait_for("both clicks", || {
        (cluster.count("select count(distinct token) from holdfast.hits where token in ('late', 'later')")
            == 2)
            .then_some(())
    });
    assert_eq!(edge.status()["database"]["state"], "up");
    drop(lock);
    cluster.sql("insert into holdfast.domains (host, site) values ('new.test', 'shop')");
    wait_status(&edge, "new.test", 302);
    assert_eq!(edge.metric("holdfast_domains_failing", ""), 0.0);
}

/// Domains were imported into the table of an earlier release, whose triggers were not there, and nobody was told
/// that no edge follows them.
#[test]
fn a_schema_without_domains_is_told_of_and_stops_nothing_else() {
    let cluster = Cluster::start();
    let never =
        cluster.configuration(SITE).replace("poll = \"50ms\"", "poll = \"50ms\"\nmigrate = \"never\"");
    let mut edge = Edge::prepare(&never, LINKS);
    cluster.take_back(1);
    std::fs::write(edge.path("domains.csv"), "host,site\nclick.brand.test,shop\n").unwrap();
    for arguments in [&["domains", "import", "domains.csv"][..], &["domains", "export"]] {
        let refused = edge.run(arguments);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && said.contains("holdfast migrate"), "{said}");
    }
    edge.start();
    wait_for("the alarm", || (edge.metric("holdfast_domains_failing", "") == 1.0).then_some(()));
    assert!(edge.log().contains("run `holdfast migrate`"), "{}", edge.log());
    assert_eq!(edge.get("click.test", "/c/a").status, 302);
    wait_for("the click", || (cluster.count("select count(*) from holdfast.hits") == 1).then_some(()));
    edge.ok(&["migrate"]);
    edge.ok(&["domains", "import", "domains.csv"]);
    wait_status(&edge, "click.brand.test", 302);
}

/// An edge whose user may not alter tables was to take a step by itself, failed at it, and delivered nothing.
#[test]
fn a_step_that_an_edge_may_not_take_stops_no_delivery() {
    let cluster = Cluster::start();
    let mut edge = Edge::prepare(&cluster.configuration(SITE), LINKS);
    cluster.take_back(1);
    cluster.sql("reassign owned by holdfast to current_user");
    cluster.sql(&format!(
        "grant usage on schema holdfast to {USER}; grant all on all tables in schema holdfast to {USER};
         grant usage on all sequences in schema holdfast to {USER}"
    ));
    edge.start();
    assert_eq!(edge.get("click.test", "/c/a").status, 302);
    wait_for("the click", || (cluster.count("select count(*) from holdfast.hits") == 1).then_some(()));
    assert!(edge.log().contains("the schema cannot be brought up to date"), "{}", edge.log());
}

#[test]
fn every_edge_of_a_server_hears_of_a_new_domain() {
    let cluster = Cluster::start();
    let first = cluster.edge(SITE, LINKS);
    // The next poll comes later than the patience of this test.
    let slow = cluster
        .configuration(SITE)
        .replace("poll = \"50ms\"", "poll = \"1m\"")
        .replace("edge = \"test\"", "edge = \"second\"");
    let second = Edge::with(&slow, LINKS);
    cluster.sql("insert into holdfast.domains (host, site, namespace) values ('brand.test', 'shop', 'two')");
    for edge in [&first, &second] {
        wait_status(edge, "brand.test", 302);
        assert_eq!(edge.redirect("brand.test", "/c/a"), "https://example.com/two");
    }
    cluster.sql("update holdfast.domains set namespace = 'three', brand = '{\"name\": \"Blume\"}' where host = 'brand.test'");
    for edge in [&first, &second] {
        wait_for("the other namespace", || {
            (edge.redirect("brand.test", "/c/a") == "https://example.com/three").then_some(())
        });
        assert!(edge.get("brand.test", "/c/unknown").text().contains("Blume"));
    }
    cluster.sql("delete from holdfast.domains");
    assert_eq!(cluster.count("select count(*) from holdfast.domains where deleted"), 1);
    for edge in [&first, &second] {
        wait_status(edge, "brand.test", 421);
    }
    // A table that cannot be read costs nothing but news of domains.
    cluster.sql("insert into holdfast.domains (host, site) values ('stays.test', 'shop')");
    wait_status(&first, "stays.test", 302);
    cluster.sql("alter table holdfast.domains rename to domains_away");
    wait_for("the fault", || (first.metric("holdfast_domains_failing", "") == 1.0).then_some(()));
    assert!(first.log().contains("customers' domains cannot be read"));
    assert!(first.tell(&["status"]).contains("FAILING"));
    first.import("namespace,token,url\none,late,https://example.com/late\n");
    wait_for("the late link", || (first.get("stays.test", "/c/late").status == 302).then_some(()));
    cluster.sql("alter table holdfast.domains_away rename to domains");
    // Numbers of transactions that came with a dump from another server hide no later change.
    cluster.sql(
        "alter table holdfast.domains disable trigger domains_revise;
         update holdfast.domains set revision = '4000000000';
         alter table holdfast.domains enable trigger domains_revise",
    );
    let said = import(&first, "brand.test,shop,,\"{\"\"name\"\":\"\"X\"\"}\",\nmore.test,shop,ü,,\n");
    assert!(said.contains("2 domains read: 1 new, 1 changed"), "{said}");
    wait_status(&first, "brand.test", 302);
    assert!(import(&first, "brand.test,shop,,\"{\"\"name\"\":\"\"X\"\"}\",\n").contains("1 as before"));
    let exported = first.ok(&["domains", "export"]);
    assert!(exported.contains("more.test,shop,ü"), "{exported}");
}

/// The SQL lacked the rows of `meta` that say which step was taken, and had every step: whoever ran it had errors,
/// or a database whose domains no edge followed.
#[test]
fn the_printed_sql_brings_a_database_from_where_it_is_to_the_newest() {
    for step in 0..3 {
        let cluster = Cluster::start();
        let config =
            cluster.configuration(SITE).replace("poll = \"50ms\"", "poll = \"50ms\"\nmigrate = \"never\"");
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        std::fs::write(folder.path().join("holdfast.toml"), config).unwrap();
        let mut edge = Edge::in_folder(folder);
        if step > 0 {
            edge.import(LINKS);
            cluster.take_back(step);
        }
        let printed = edge.ok(&["migrate", "--print"]);
        let has = |table: &str| printed.contains(&format!("CREATE TABLE \"holdfast\".{table} "));
        assert_eq!((has("links"), has("orders")), (step < 1, step < 2), "from {step}: {printed}");
        cluster.run_sql(&printed).unwrap();
        // Twice, or on a database that stands elsewhere, it does nothing.
        assert!(cluster.run_sql(&printed).unwrap_err().contains("print this SQL again"));
        assert!(edge.ok(&["migrate", "--print"]).starts_with("-- "));
        assert!(edge.ok(&["migrate", "--print"]).contains("up to date, at step 3"));
        edge.import(LINKS);
        edge.start();
        cluster
            .sql("insert into holdfast.domains (host, site, namespace) values ('brand.test', 'shop', 'two')");
        wait_status(&edge, "brand.test", 302);
        cluster.sql("delete from holdfast.domains");
        wait_status(&edge, "brand.test", 421);
        assert!(edge.ok(&["migrate"]).contains("up to date"));
    }
}

#[test]
fn the_sql_of_a_database_that_cannot_be_asked_is_all_of_it_and_says_so() {
    let mut cluster = Cluster::start();
    let edge = Edge::prepare(&cluster.configuration(SITE), LINKS);
    cluster.stop();
    let printed = edge.ok(&["migrate", "--print"]);
    let first = printed.lines().next().unwrap();
    assert!(
        first.starts_with("-- This is all of the schema") && first.contains("nobody could be asked"),
        "{first}"
    );
    assert!(!printed.contains(crate::cluster::PASSWORD));
    cluster.run();
    // It was there after all.
    assert!(cluster.run_sql(&printed).unwrap_err().contains("it is there already"));
    let missing = Edge::in_folder(tempfile::tempdir().unwrap());
    std::fs::create_dir(missing.path("data")).unwrap();
    std::fs::write(missing.path("holdfast.toml"), configuration(SITE)).unwrap();
    let printed = missing.ok(&["migrate", "--print"]);
    assert!(
        printed.starts_with("-- This is all of the schema") && printed.contains("does not exist"),
        "{printed}"
    );
    assert!(printed.contains("'compatible', 1"), "{printed}");
}
