//! Wrong arguments and wrong files: every fault at once, where it is, what to do.

use crate::edge::{Edge, SITE, configuration, holdfast};

#[test]
fn check_reports_every_fault_and_exits_78() {
    let folder = tempfile::tempdir().unwrap();
    let bad = "edge = 5\n[listen]\nhtp = []\n[journal]\nmode = \"maybe\"\nretain = \"7 days\"\n[[site]]\nname = \"a\"\nhosts = [\"x.test\", \"bad host\"]\n[[site.route]]\npath = \"no-slash\"\n[[site]]\nname = \"b\"\nhosts = [\"x.test\"]\ntime_zone = \"Mars/Olympus\"\n";
    std::fs::write(folder.path().join("holdfast.toml"), bad).unwrap();
    let output = holdfast().arg("check").current_dir(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr);
    for expected in [
        "holdfast.toml:1:",
        "holdfast.toml:3:",
        "listen.http",
        "holdfast.toml:5:",
        "holdfast.toml:6:",
        "holdfast.toml:9:",
        "holdfast.toml:11:",
        "holdfast.toml:14:",
        "holdfast.toml:15:",
        "x.test",
    ] {
        assert!(said.contains(expected), "{expected} in\n{said}");
    }
}

#[test]
fn a_good_configuration_passes_and_connects() {
    let edge = Edge::prepare(&configuration(SITE), "namespace,token,url\none,a,https://example.com/a\n");
    edge.ok(&["check"]);
    edge.ok(&["check", "--connect"]);
    std::fs::remove_file(edge.database()).unwrap();
    let output = edge.run(&["check", "--connect"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("holdfast.db"));
    assert!(!edge.database().exists());
}

#[test]
fn the_environment_overrides_the_file() {
    let edge = Edge::prepare(&configuration(SITE), "namespace,token,url\none,a,https://example.com/a\n");
    let output = holdfast()
        .arg("check")
        .current_dir(edge.folder.path())
        .env("HOLDFAST__JOURNAL__MODE", "sometimes")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("HOLDFAST__JOURNAL__MODE"));
}

#[test]
fn a_missing_file_and_a_taken_port_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let output = holdfast().arg("serve").current_dir(folder.path()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("holdfast.toml"));

    let edge = Edge::prepare(&configuration(SITE), "namespace,token,url\none,a,https://example.com/a\n");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = configuration(SITE).replacen("127.0.0.1:0", &taken.local_addr().unwrap().to_string(), 1);
    std::fs::write(edge.path("holdfast.toml"), config).unwrap();
    let output = edge.run(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("listen.http") && said.contains("taken"), "{said}");
}

#[test]
fn init_makes_a_folder_that_serves() {
    let folder = tempfile::tempdir().unwrap();
    let output = holdfast().args(["init", "mine"]).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mine = folder.path().join("mine");
    for name in ["holdfast.toml", "holdfast.db", "data"] {
        assert!(mine.join(name).exists(), "{name}");
    }
    let check = holdfast().args(["check", "--connect"]).current_dir(&mine).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let again = holdfast().args(["init", "mine"]).current_dir(folder.path()).output().unwrap();
    assert!(!again.status.success(), "an existing folder is never overwritten");
}
