//! A real edge in a scratch folder: started, asked, killed and started again by the tests.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a condition may take before the test fails; generous, for machines are slow and noisy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A scratch folder with a configuration, a database and perhaps a running edge.
pub struct Edge {
    pub folder: TempDir,
    child: Option<Child>,
    starts: u32,
    pub http: SocketAddr,
    /// The same as `http` where nothing listens for https.
    pub https: SocketAddr,
    pub admin: SocketAddr,
}

/// The program under test.
pub fn holdfast() -> Command {
    Command::new(env!("CARGO_BIN_EXE_holdfast"))
}

/// The configuration of most tests; `extra` goes below it.
pub fn configuration(extra: &str) -> String {
    format!(
        r#"
edge = "test"
data = "data"
[listen]
http = ["127.0.0.1:0"]
threads = 2
drain_min = "200ms"
drain_max = "5s"
[admin]
listen = "127.0.0.1:0"
[database]
url = "sqlite:holdfast.db"
poll = "50ms"
[deliver]
every = "50ms"
[journal]
segment = "1MiB"
spare_segments = 1
[log]
format = "json"
{extra}
"#
    )
}

/// A site that most tests use: hosts `click.test` and `*.wild.test`, namespace `one`.
pub const SITE: &str = r#"
[[site]]
name = "shop"
hosts = ["click.test", "*.wild.test"]
namespace = "one"
preset = "dotdigital"
[[site.route]]
path = "/c/{token}"
kind = "click"
[[site.route]]
path = "/o/{token}"
kind = "open"
"#;

impl Edge {
    /// A folder with `config`, an empty database and these links (CSV with header).
    pub fn prepare(config: &str, links: &str) -> Self {
        let folder = tempfile::tempdir().expect("scratch folder");
        fs::create_dir(folder.path().join("data")).expect("data folder");
        fs::write(folder.path().join("holdfast.toml"), config).expect("configuration");
        let none = SocketAddr::from(([127, 0, 0, 1], 0));
        let edge = Self { folder, child: None, starts: 0, http: none, https: none, admin: none };
        edge.import(links);
        edge
    }

    /// A folder that holds a configuration already.
    pub fn in_folder(folder: TempDir) -> Self {
        let none = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { folder, child: None, starts: 0, http: none, https: none, admin: none }
    }

    /// [`Self::prepare`] and [`Self::start`].
    pub fn with(config: &str, links: &str) -> Self {
        let mut edge = Self::prepare(config, links);
        edge.start();
        edge
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn database(&self) -> PathBuf {
        self.path("holdfast.db")
    }

    /// Runs a command in the folder and returns what it said.
    pub fn run(&self, arguments: &[&str]) -> Output {
        holdfast().args(arguments).current_dir(self.folder.path()).output().expect("holdfast runs")
    }

    /// Runs a command that must succeed; returns its stdout.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "holdfast {arguments:?}: {:?}\n{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Imports links given as CSV with header; makes the database when there is none.
    pub fn import(&self, links: &str) {
        fs::write(self.path("import.csv"), links).expect("links file");
        self.ok(&["links", "import", "import.csv", "--create"]);
    }

    /// Runs a command against this running edge.
    pub fn ask(&self, arguments: &[&str]) -> Output {
        let admin = self.admin.to_string();
        let mut all = arguments.to_vec();
        all.extend(["--admin", &admin]);
        self.run(&all)
    }

    /// The same for one that must succeed.
    pub fn tell(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Starts the edge and waits until it is ready.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    pub fn start_with(&mut self, arguments: &[&str]) {
        self.launch(arguments);
        self.wait_ready();
    }

    /// Starts the process without waiting for more than its addresses.
    pub fn launch(&mut self, arguments: &[&str]) {
        self.starts += 1;
        let log = fs::File::create(self.log_path()).expect("log file");
        let child = holdfast()
            .arg("serve")
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("holdfast starts");
        self.child = Some(child);
        let (http, https, admin) = wait_for("the edge's addresses", || {
            self.assert_alive();
            let log = self.log();
            let address = |role: &str| {
                let line = log.lines().find(|line| line.contains("\"listening\"") && line.contains(role))?;
                let value: serde_json::Value = serde_json::from_str(line).ok()?;
                value["fields"]["address"].as_str()?.parse::<SocketAddr>().ok()
            };
            // The admin listener's line is the last one.
            let (admin, http) = (address("\"admin\"")?, address("\"http\"")?);
            Some((http, address("\"https\"").unwrap_or(http), admin))
        });
        self.http = http;
        self.https = https;
        self.admin = admin;
    }

    pub fn wait_ready(&mut self) {
        let admin = self.admin;
        wait_for("the edge to be ready", || {
            self.assert_alive();
            get(admin, "localhost", "/ready").ok().filter(|answer| answer.status == 200).map(|_| ())
        });
    }

    fn assert_alive(&mut self) {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait().expect("child")
        {
            panic!("the edge ended with {status}:\n{}", self.log());
        }
    }

    fn log_path(&self) -> PathBuf {
        self.path(&format!("edge-{}.log", self.starts))
    }

    /// What the running (or last) process logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill");
            child.wait().expect("wait");
        }
    }

    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().expect("kill");
        assert!(status.success());
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) {
        self.signal("TERM");
        let mut child = self.child.take().expect("running");
        let status = wait_for("the edge to end", || child.try_wait().expect("child"));
        assert!(status.success(), "{status}: {}", self.log());
    }

    /// Gives the process away, to be ended by the caller.
    pub fn take_child(&mut self) -> Child {
        self.child.take().expect("running")
    }

    pub fn get(&self, host: &str, path: &str) -> Answer {
        get(self.http, host, path).unwrap_or_else(|error| panic!("GET {host}{path}: {error}\n{}", self.log()))
    }

    /// The Location of a redirect, or a panic that shows the answer.
    pub fn redirect(&self, host: &str, path: &str) -> String {
        let answer = self.get(host, path);
        assert_eq!(answer.status, 302, "{answer:?}\n{}", self.log());
        answer.header("location").expect("location").to_owned()
    }

    pub fn status(&self) -> serde_json::Value {
        serde_json::from_slice(&get(self.admin, "localhost", "/status").expect("status").body).expect("JSON")
    }

    pub fn metrics(&self) -> String {
        String::from_utf8(get(self.admin, "localhost", "/metrics").expect("metrics").body).expect("UTF-8")
    }

    /// The sum of all series of a metric whose labels contain `labels`.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        self.metrics()
            .lines()
            .filter(|line| {
                line.starts_with(name) && line[name.len()..].starts_with([' ', '{']) && line.contains(labels)
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// The answer to an SQL question of one number.
    pub fn count(&self, sql: &str) -> i64 {
        let database = rusqlite::Connection::open_with_flags(
            self.database(),
            rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE,
        )
        .expect("database");
        database.busy_timeout(Duration::from_secs(10)).expect("timeout");
        database.query_row(sql, [], |row| row.get(0)).expect(sql)
    }

    /// Waits until the SQL question has this answer.
    pub fn wait_count(&self, sql: &str, expected: i64) {
        let mut last = None;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            last = Some(self.count(sql));
            if last == Some(expected) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{sql}: {last:?}, expected {expected}\n{}", self.log());
    }

    pub fn execute(&self, sql: &str) {
        let database = rusqlite::Connection::open(self.database()).expect("database");
        database.busy_timeout(Duration::from_secs(10)).expect("timeout");
        database.execute_batch(sql).expect(sql);
    }
}

impl Drop for Edge {
    #[expect(clippy::print_stderr, reason = "a failing test says what it knows")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what the edge of the failing test logged:\n{}", self.log());
        }
        self.kill();
    }
}

/// Waits until `found` finds something; panics with `what` when it does not.
pub fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An HTTP answer, byte for byte.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("UTF-8")
    }
}

/// A connection that is kept open between requests.
pub struct Client {
    stream: Box<dyn Wire + Send>,
    buffer: Vec<u8>,
}

/// What a client's bytes go through: a socket, or TLS over one.
pub trait Wire: std::io::Read + std::io::Write {}

impl<T: std::io::Read + std::io::Write> Wire for T {}

impl Client {
    pub fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }

    /// A client over a connection that is there already.
    pub fn over(stream: impl Wire + Send + 'static) -> Self {
        Self { stream: Box::new(stream), buffer: Vec::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Reads one answer; `bodiless` after HEAD.
    pub fn answer(&mut self, bodiless: bool) -> std::io::Result<Answer> {
        let head_end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.fill()?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..head_end]).into_owned();
        self.buffer.drain(..head_end);
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let mut answer = Answer { status, head, body: Vec::new() };
        let length =
            answer.header("content-length").and_then(|value| value.parse::<usize>().ok()).unwrap_or(0);
        if !bodiless {
            while self.buffer.len() < length {
                self.fill()?;
            }
            answer.body = self.buffer.drain(..length).collect();
        }
        Ok(answer)
    }

    pub fn get(&mut self, host: &str, path: &str) -> std::io::Result<Answer> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: test\r\n\r\n").as_bytes())?;
        self.answer(false)
    }

    /// True when the other side closed and sent nothing more.
    pub fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        self.buffer.is_empty() && matches!(self.stream.read(&mut byte), Ok(0) | Err(_))
    }

    fn fill(&mut self) -> std::io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        let read = self.stream.read(&mut chunk)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.buffer.extend_from_slice(&chunk[..read]);
        Ok(())
    }
}

/// One GET on a connection of its own.
pub fn get(address: SocketAddr, host: &str, path: &str) -> std::io::Result<Answer> {
    Client::connect(address)?.get(host, path)
}

/// Sends raw bytes and returns the first answer.
pub fn raw(address: SocketAddr, bytes: &[u8]) -> std::io::Result<Answer> {
    let mut client = Client::connect(address)?;
    client.send(bytes)?;
    client.answer(bytes.starts_with(b"HEAD"))
}

/// Copies a file or a whole folder.
pub fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("folder");
        for entry in fs::read_dir(from).expect("folder") {
            let entry = entry.expect("entry");
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::copy(from, to).expect("copy");
    }
}
