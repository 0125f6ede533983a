//! The demo, as the first thing that anybody runs: it starts, its links work, its advice is true, it ends.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::edge::{Answer, get, holdfast, wait_for};

/// A running demo; it is killed with whoever dropped it.
struct Demo {
    folder: TempDir,
    child: Child,
    http: SocketAddr,
    admin: SocketAddr,
}

/// A port that was free a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn command(folder: &Path, http: SocketAddr, admin: SocketAddr) -> Command {
    let mut command = holdfast();
    command
        .args(["demo", "--http", &http.to_string(), "--admin", &admin.to_string()])
        // Its scratch folder lies here, so that what it leaves can be seen.
        .env("TMPDIR", folder)
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

impl Demo {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (http, admin) = (free(), free());
        let out = fs::File::create(folder.path().join("said")).unwrap();
        let child = command(folder.path(), http, admin)
            // The lines that it prints are called by this name.
            .arg0(env!("CARGO_BIN_EXE_holdfast"))
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let mut demo = Self { folder, child, http, admin };
        wait_for("the demo to greet", || {
            let ended = demo.child.try_wait().unwrap();
            assert!(ended.is_none(), "the demo ended: {}", demo.said());
            demo.said().contains("Ctrl-C ends the demo.").then_some(())
        });
        wait_for("the demo to be ready", || {
            get(demo.admin, "localhost", "/ready").ok().filter(|answer| answer.status == 200)
        });
        demo
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("said")).unwrap()
    }

    /// The links that it prints, as paths.
    fn links(&self) -> Vec<String> {
        let start = format!("http://{}", self.http);
        self.said()
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix(&start)?.split_whitespace().next())
            .map(str::to_owned)
            .collect()
    }

    fn click(&self, path: &str) -> Answer {
        get(self.http, &self.http.to_string(), path).unwrap()
    }

    /// Runs the line that it prints for these words, as a reader would: copied into a shell.
    fn printed(&self, words: &str) -> String {
        let said = self.said();
        let line = said
            .lines()
            .map(str::trim)
            .flat_map(|line| [Some(line), line.strip_prefix('`').and_then(|line| line.split('`').next())])
            .flatten()
            .find(|line| line.contains("/holdfast ") && line.contains(words) && !line.contains('`'))
            .unwrap_or_else(|| panic!("no line with \"{words}\" in {said}"));
        let output = Command::new("sh").args(["-c", line]).current_dir(self.folder.path()).output().unwrap();
        let heard = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{line}: {heard}{}", String::from_utf8_lossy(&output.stderr));
        heard
    }

    fn end(mut self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let status = wait_for("the demo to end", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}: {}", self.said());
        let left: Vec<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .filter_map(Result::ok)
            .map(|entry| entry.file_name())
            .filter(|name| name != "said")
            .collect();
        assert!(left.is_empty(), "{signal} left {left:?}");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn its_links_work_in_the_window_that_it_proposes_and_after_it() {
    let demo = Demo::start();
    let links = demo.links();
    assert_eq!(links.len(), 3, "{}", demo.said());
    let statuses = || links.iter().map(|path| demo.click(path).status).collect::<Vec<_>>();
    // A plain one, one with captures, one whose time is over.
    wait_for("the links", || (statuses() == [302, 302, 410]).then_some(()));
    let target = demo.click(&links[1]).header("location").unwrap().to_owned();
    assert!(target.contains("dm_i=FHG,1A2B3,9KQ2XW,4TZ81A,1"), "{target}");
    assert_eq!(demo.click("/o/any").header("content-type"), Some("image/gif"));
    assert_eq!(demo.click("/c/no-such-link").status, 404);
    assert!(demo.printed("status").contains("up"));

    demo.printed("window begin");
    assert_eq!(statuses(), [302, 302, 410]);
    let missed = demo.click("/c/no-such-link");
    assert_eq!(missed.status, 503);
    assert!(missed.text().contains("Down for planned maintenance"), "{}", missed.text());
    assert!(demo.printed("status").contains("window"));

    demo.printed("window end");
    wait_for("the end of the window", || (demo.click("/c/no-such-link").status == 404).then_some(()));
    assert_eq!(statuses(), [302, 302, 410]);
    demo.end("-INT");
}

#[test]
fn it_ends_on_sigterm_and_leaves_nothing() {
    Demo::start().end("-TERM");
}

#[test]
fn a_taken_port_is_named_by_the_flag_that_chooses_another() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    for (http, admin, flag, setting) in
        [(taken, free(), "--http", "listen.http"), (free(), taken, "--admin", "admin.listen")]
    {
        let folder = tempfile::tempdir().unwrap();
        let output = command(folder.path(), http, admin).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(flag) && said.contains("taken") && said.contains(&taken.to_string()), "{said}");
        assert!(!said.contains(setting), "the demo has no such setting: {said}");
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 0, "nothing is left of a demo that did not start");
    }
}

#[test]
fn what_is_kept_is_there_the_next_time() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    for round in 1..=2_i64 {
        let (http, admin) = (free(), free());
        let mut child = command(folder.path(), http, admin)
            .arg("--keep")
            .arg(&kept)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("a link of the demo", || {
            get(http, &http.to_string(), "/c/catalogue").ok().filter(|answer| answer.status == 302)
        });
        let stopped = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(stopped.success());
        assert!(wait_for("the end", || child.try_wait().unwrap()).success());
        let database = rusqlite::Connection::open(kept.join("holdfast.db")).unwrap();
        let journals: i64 =
            database.query_row("select count(*) from journals", [], |row| row.get(0)).unwrap();
        assert_eq!(journals, round, "each start is one more journal of the same database");
    }
}
