//! The demo, as the first thing that anybody runs: it starts, its links work, its advice is true, it ends.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::edge::{Answer, get, holdfast, wait_for};

/// A running demo; it is killed with whoever dropped it.
struct Demo {
    /// Taken by whoever goes on with it.
    folder: Option<TempDir>,
    child: Child,
    http: SocketAddr,
    admin: SocketAddr,
}

/// Any free port; the greeting says which.
const FREE: &str = "127.0.0.1:0";

fn command(folder: &Path, http: &str, admin: &str) -> Command {
    let mut command = holdfast();
    command
        .args(["demo", "--http", http, "--admin", admin])
        // Its scratch folder lies here, so that what it leaves can be seen.
        .env("TMPDIR", folder)
        .current_dir(folder)
        // The lines that it prints are called by this name.
        .arg0(env!("CARGO_BIN_EXE_holdfast"))
        .stdin(Stdio::null());
    command
}

/// The address in front of `path` in what the demo said.
fn address(said: &str, path: &str) -> Option<SocketAddr> {
    let end = said.find(path)?;
    let start = said[..end].rfind("http://")? + "http://".len();
    said[start..end].parse().ok()
}

impl Demo {
    fn start() -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), &[])
    }

    fn in_folder(folder: TempDir, more: &[&str]) -> Self {
        let out = fs::File::create(folder.path().join("said")).unwrap();
        let child = command(folder.path(), FREE, FREE)
            .args(more)
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut demo = Self { folder: Some(folder), child, http: nowhere, admin: nowhere };
        let said = wait_for("the demo to greet", || {
            let ended = demo.child.try_wait().unwrap();
            assert!(ended.is_none(), "the demo ended: {}", demo.said());
            Some(demo.said()).filter(|said| said.contains("Ctrl-C ends the demo."))
        });
        demo.http = address(&said, "/c/catalogue").expect("a link");
        demo.admin = address(&said, "/metrics").expect("the metrics");
        wait_for("the demo to be ready", || {
            get(demo.admin, "localhost", "/ready").ok().filter(|answer| answer.status == 200)
        });
        demo
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.as_ref().expect("until its end").path().join(name)
    }

    fn said(&self) -> String {
        fs::read_to_string(self.path("said")).unwrap()
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
        let output = Command::new("sh").args(["-c", line]).current_dir(self.path("")).output().unwrap();
        let heard = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{line}: {heard}{}", String::from_utf8_lossy(&output.stderr));
        heard
    }

    /// Ends it by a signal; returns its folder, and what it left there.
    fn end(mut self, signal: &str) -> (TempDir, Vec<String>) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let status = wait_for("the demo to end", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}: {}", self.said());
        let folder = self.folder.take().expect("until its end");
        let left = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "said")
            .collect();
        (folder, left)
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
    assert_eq!(demo.end("-INT").1, [""; 0], "nothing is left");
}

#[test]
fn it_ends_on_sigterm_and_leaves_nothing() {
    assert_eq!(Demo::start().end("-TERM").1, [""; 0], "nothing is left");
}

#[test]
fn a_taken_port_is_named_by_the_flag_that_chooses_another() {
    let listener = TcpListener::bind(FREE).unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    for (http, admin, flag, setting) in
        [(taken.as_str(), FREE, "--http", "listen.http"), (FREE, taken.as_str(), "--admin", "admin.listen")]
    {
        let folder = tempfile::tempdir().unwrap();
        let output = command(folder.path(), http, admin).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(flag) && said.contains("taken") && said.contains(&taken), "{said}");
        assert!(!said.contains(setting), "the demo has no such setting: {said}");
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 0, "nothing is left of a demo that did not start");
    }
}

#[test]
fn what_is_kept_is_there_the_next_time() {
    let mut folder = tempfile::tempdir().unwrap();
    for round in 1..=2_i64 {
        let demo = Demo::in_folder(folder, &["--keep", "kept"]);
        wait_for("a link of the demo", || (demo.click("/c/catalogue").status == 302).then_some(()));
        let database = demo.path("kept/holdfast.db");
        let left;
        (folder, left) = demo.end("-TERM");
        assert_eq!(left, ["kept"]);
        let database = rusqlite::Connection::open(database).unwrap();
        let clicks: i64 = database
            .query_row("select count(distinct journal) from hits where token = 'catalogue'", [], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(clicks, round, "each start adds the clicks of its own journal");
    }
}
