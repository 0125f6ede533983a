//! Links come, change and go while the edge runs; a sick database cannot take them away.

use std::path::{Path, PathBuf};

use crate::edge::{Edge, SITE, configuration, wait_for};

const LINKS: &str = "namespace,token,url\none,a,https://example.com/a\none,b,https://example.com/b\n";

fn edge() -> Edge {
    Edge::with(&configuration(SITE), LINKS)
}

/// Many links, so that the guard's share of one percent is more than one link.
fn many(count: usize) -> String {
    let rows: String = (0..count).map(|n| format!("one,t{n},https://example.com/{n}\n")).collect();
    format!("namespace,token,url\n{rows}")
}

#[test]
fn an_import_works_within_a_second_and_a_delete_stops_as_fast() {
    let edge = edge();
    assert_eq!(edge.get("click.test", "/c/new").status, 404, "asked before it exists: remembered as unknown");
    edge.import("namespace,token,url\none,new,https://example.com/new\n");
    wait_for("the new link", || (edge.get("click.test", "/c/new").status == 302).then_some(()));

    edge.import("namespace,token,url\none,new,https://example.com/changed\n");
    wait_for("the changed target", || {
        (edge.get("click.test", "/c/new").header("location") == Some("https://example.com/changed"))
            .then_some(())
    });

    edge.execute("delete from links where token = 'new'");
    wait_for("the deleted link to stop", || (edge.get("click.test", "/c/new").status == 410).then_some(()));
    assert_eq!(edge.redirect("click.test", "/c/a"), "https://example.com/a");
}

#[test]
fn plain_sql_by_others_is_followed() {
    let edge = edge();
    edge.execute("insert into links(namespace, token, url) values ('one', 'sql', 'https://example.com/sql')");
    wait_for("the inserted link", || (edge.get("click.test", "/c/sql").status == 302).then_some(()));
    edge.execute("update links set disabled = 1 where token = 'sql'");
    wait_for("the disabled link", || (edge.get("click.test", "/c/sql").status == 410).then_some(()));
    edge.execute("update links set disabled = 0, expires_at = 1000000000000 where token = 'sql'");
    wait_for("the expired link", || {
        let answer = edge.get("click.test", "/c/sql");
        (answer.status == 410).then_some(())
    });
}

#[test]
fn an_import_with_faults_names_the_lines_and_imports_nothing() {
    let edge = edge();
    let faulty = "namespace,token,url\n\
        one,good,https://example.com/good\n\
        one,js,javascript:alert(1)\n\
        one,,https://example.com/empty-token\n\
        one,good,https://example.com/twice\n\
        one,user,https://user:secret@example.com/\n";
    std::fs::write(edge.path("faulty.csv"), faulty).unwrap();
    let output = edge.run(&["links", "import", "faulty.csv"]);
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success());
    for line in ["faulty.csv:3", "faulty.csv:4", "faulty.csv:5", "faulty.csv:6"] {
        assert!(said.contains(line), "{line} in {said}");
    }
    assert!(!said.contains("secret"), "{said}");
    assert_eq!(edge.count("select count(*) from links where token = 'good'"), 0);

    edge.ok(&["links", "import", "faulty.csv", "--skip-bad"]);
    assert_eq!(edge.count("select count(*) from links where token = 'good'"), 1);
    assert_eq!(edge.count("select count(*) from links where token in ('js', 'user')"), 0);
}

#[test]
fn files_that_are_no_links_are_refused_with_their_place() {
    let edge = edge();
    for (name, bytes, expected) in [
        ("latin.csv", &b"namespace,token,url\none,x,https://example.com/\xe9\n"[..], "UTF-8"),
        ("columns.csv", b"namespace,url\none,https://example.com/\n", "token"),
        ("unknown.csv", b"namespace,token,url,colour\none,x,https://example.com/,red\n", "colour"),
        ("ragged.csv", b"namespace,token,url\none,x\n", "ragged.csv:2"),
        ("empty.csv", b"", "header"),
        ("bad.ndjson", b"{\"namespace\":\"one\",\"token\":\"x\"}\n", "url"),
    ] {
        std::fs::write(edge.path(name), bytes).unwrap();
        let output = edge.run(&["links", "import", name]);
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{name}");
        assert!(said.contains(expected), "{name}: {expected} in {said}");
    }
    assert_eq!(edge.count("select count(*) from links"), 2);
}

#[test]
fn formats_lead_back_to_the_same_links() {
    let edge = edge();
    edge.import("namespace,token,url,campaign,append,expires_at,disabled\none,c\\xe9,https://example.com/c,spring,false,2031-01-01T00:00:00Z,true\n");
    for (format, name) in [("csv", "out.csv"), ("tsv", "out.tsv"), ("ndjson", "out.ndjson")] {
        let exported = edge.ok(&["links", "export", "--format", format]);
        std::fs::write(edge.path(name), &exported).unwrap();
        edge.execute("delete from links");
        edge.ok(&["links", "import", name]);
        assert_eq!(edge.ok(&["links", "export", "--format", format]), exported, "{format}");
    }
    let shown = edge.ok(&["links", "show", "a", "--namespace", "one", "--admin", &edge.admin.to_string()]);
    assert!(shown.contains("https://example.com/a"), "{shown}");
}

#[test]
fn an_emptied_database_is_held_back_and_links_go_on() {
    let mut edge = Edge::with(&configuration(SITE), &many(500));
    edge.stop();
    // The application's restore went wrong: the same schema, most of the rows missing.
    std::fs::remove_file(edge.database()).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(edge.path(&format!("holdfast.db{suffix}")));
    }
    edge.import(&many(400));
    edge.start();
    wait_for("the load to be held", || (edge.status()["links"]["held"].is_object()).then_some(()));
    assert_eq!(edge.redirect("click.test", "/c/t450"), "https://example.com/450");
    assert_eq!(edge.metric("holdfast_links_load_held", ""), 1.0);

    edge.tell(&["links", "accept"]);
    wait_for("the load to be taken", || edge.status()["links"]["held"].is_null().then_some(()));
    // Accepted or not: a link stops only when it was absent for `links.forget_after`.
    assert_eq!(edge.redirect("click.test", "/c/t450"), "https://example.com/450");
}

#[test]
fn refused_targets_never_fail_a_load() {
    let edge = edge();
    edge.execute("insert into links(namespace, token, url) values ('one', 'evil', 'javascript:alert(1)'), ('one', 'fine', 'https://example.com/fine')");
    wait_for("the good link", || (edge.get("click.test", "/c/fine").status == 302).then_some(()));
    assert_eq!(edge.get("click.test", "/c/evil").status, 404);
    let refused = edge.ok(&["links", "refused"]);
    assert!(refused.contains("evil") && !refused.contains("fine"), "{refused}");
}

/// The snapshots of links, the newest last.
fn snapshots(edge: &Edge) -> Vec<PathBuf> {
    let generation = |path: &PathBuf| -> Option<u64> {
        path.file_name()?.to_str()?.strip_prefix("table-")?.strip_suffix(".links")?.parse().ok()
    };
    let files = std::fs::read_dir(edge.path("data/links")).unwrap().filter_map(Result::ok);
    let mut found: Vec<PathBuf> =
        files.map(|file| file.path()).filter(|path| generation(path).is_some()).collect();
    found.sort_by_key(generation);
    found
}

fn damage(snapshot: &Path) {
    let mut bytes = std::fs::read(snapshot).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(snapshot, bytes).unwrap();
}

fn is_set_aside(edge: &Edge) -> bool {
    let mut files = std::fs::read_dir(edge.path("data/links")).unwrap().filter_map(Result::ok);
    files.any(|file| file.path().to_string_lossy().ends_with(".damaged"))
}

#[test]
fn a_damaged_snapshot_is_set_aside_and_rebuilt() {
    let mut edge = edge();
    edge.stop();
    damage(snapshots(&edge).last().expect("a snapshot"));
    edge.start();
    wait_for("the links from the database", || (edge.get("click.test", "/c/a").status == 302).then_some(()));
    assert!(is_set_aside(&edge));
    assert!(edge.log().contains("does not match its checksum"), "{}", edge.log());
}

#[test]
fn a_damaged_snapshot_while_the_database_is_away_leaves_the_one_before_with_its_changes() {
    let mut edge = edge();
    wait_for("a first snapshot", || (snapshots(&edge).len() == 1).then_some(()));
    edge.import("namespace,token,url\none,late,https://example.com/late\n");
    wait_for("the late link", || (edge.get("click.test", "/c/late").status == 302).then_some(()));
    edge.stop();
    edge.start();
    wait_for("a second one", || (snapshots(&edge).len() == 2).then_some(()));
    edge.stop();
    damage(&snapshots(&edge)[1]);
    std::fs::rename(edge.database(), edge.path("elsewhere.db")).unwrap();
    edge.start();
    assert_eq!(edge.redirect("click.test", "/c/a"), "https://example.com/a");
    assert_eq!(edge.redirect("click.test", "/c/late"), "https://example.com/late");
    assert!(is_set_aside(&edge));
    assert!(edge.log().contains("does not match its checksum"), "{}", edge.log());
}

#[test]
fn a_snapshot_moves_to_another_edge() {
    let mut edge = edge();
    edge.ok(&["links", "snapshot", "export", "moved.links"]);
    edge.stop();
    let other = Edge::prepare(&configuration(SITE), "namespace,token,url\none,z,https://example.com/z\n");
    crate::edge::copy(&edge.path("moved.links"), &other.path("moved.links"));
    other.ok(&["links", "snapshot", "import", "moved.links"]);
    std::fs::remove_file(other.database()).unwrap();
    let mut other = other;
    other.start();
    assert_eq!(other.redirect("click.test", "/c/a"), "https://example.com/a");
}
