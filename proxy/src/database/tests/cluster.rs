//! A private PostgreSQL cluster for one test: made in a scratch folder, stopped with its guard.

use crate::database::{Source, postgres::Settings};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where Debian's packages have their binaries, the newest first.
const BINARIES: [&str; 4] = [
    "/usr/lib/postgresql/18/bin",
    "/usr/lib/postgresql/17/bin",
    "/usr/lib/postgresql/16/bin",
    "/usr/lib/postgresql/15/bin",
];

/// A running cluster. Dropping it stops it and removes its folder.
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    port: u16,
    server: Option<Child>,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        if let Some((uid, gid)) = other_user() {
            chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        let port = free_port();
        let mut cluster = Self { folder, port, server: None };
        let data = cluster.data();
        let made = program("initdb")
            .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--username=postgres"])
            .arg("--pgdata")
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "initdb");
        cluster.up();
        cluster
    }

    /// Starts the server and waits until it takes connections.
    pub(crate) fn up(&mut self) {
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        let server = program("postgres")
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(self.folder.path())
            .args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "fsync=off", "-c", "max_connections=40"])
            .stderr(log)
            .spawn()
            .unwrap();
        self.server = Some(server);
        for _ in 0..600 {
            if self.psql("postgres", "SELECT 1").is_ok() {
                return;
            }
            pause(Duration::from_millis(50));
        }
        panic!("{}", fs::read_to_string(self.folder.path().join("log")).unwrap());
    }

    /// Kills the server as a crash of its machine would.
    pub(crate) fn kill(&mut self) {
        for pid in self.processes() {
            send("KILL", pid);
        }
        if let Some(mut server) = self.server.take() {
            server.wait().unwrap();
        }
    }

    /// Stops every process of the server, so that connections hang; or lets them go on.
    pub(crate) fn freeze(&self, frozen: bool) {
        for pid in self.processes() {
            send(if frozen { "STOP" } else { "CONT" }, pid);
        }
    }

    /// The result of statements, as psql prints it without decoration.
    pub(crate) fn psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let done = Command::new(binary("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database])
            .arg("-h")
            .arg(self.folder.path())
            .args(["-p", &self.port.to_string(), "-c", sql])
            .output()
            .unwrap();
        match done.status.success() {
            true => Ok(String::from_utf8(done.stdout).unwrap().trim().to_owned()),
            false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
        }
    }

    pub(crate) fn sql(&self, sql: &str) -> String {
        self.psql("postgres", sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn settings(&self, query: &str) -> Settings {
        Self::settings_at(self.port, query)
    }

    fn settings_at(port: u16, query: &str) -> Settings {
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres?{query}");
        Settings::parse(&url, |file| file.into()).unwrap().with_edge("test".to_owned())
    }

    pub(crate) fn source(&self) -> Source {
        self.source_at(self.port)
    }

    /// The same by way of something that listens on another port.
    pub(crate) fn source_at(&self, port: u16) -> Source {
        Source::Postgres(Box::new(Self::settings_at(port, "")))
    }

    /// Writes a file that only the server may read, in the cluster's folder.
    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        if let Some((uid, gid)) = other_user() {
            chown(&path, Some(uid), Some(gid)).unwrap();
        }
        path
    }

    /// The server and its children.
    fn processes(&self) -> Vec<u32> {
        let Some(server) = &self.server else { return Vec::new() };
        let children = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent: u32 = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
            (parent == server.id()).then_some(pid)
        });
        std::iter::once(server.id()).chain(children).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens on, and that no outgoing connection takes while the server is down.
fn free_port() -> u16 {
    let first = 10_000 + (std::process::id() % 20_000) as u16;
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (first..first + 2_000).find(is_free).expect("a free port")
}

pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn send(signal: &str, pid: u32) {
    // A child may have ended meanwhile.
    let _ = Command::new("kill").args(["-s", signal, &pid.to_string()]).stderr(Stdio::null()).status();
}

fn binary(name: &str) -> PathBuf {
    let found = BINARIES.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
    found.expect("PostgreSQL is not installed: `apt-get install postgresql`")
}

/// A program that must not run as root, and that ends with this process, however that ends.
fn program(name: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some((uid, gid)) = other_user() {
        command.args(["--reuid", &uid.to_string(), "--regid", &gid.to_string(), "--clear-groups"]);
    }
    command.arg("--").arg(binary(name));
    command
}

/// The user and group `postgres` where this is root, to whom the server refuses itself.
fn other_user() -> Option<(u32, u32)> {
    if !rustix::process::getuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("the user postgres");
    let mut numbers = line.split(':').skip(2).map(|number| number.parse().unwrap());
    Some((numbers.next().unwrap(), numbers.next().unwrap()))
}
