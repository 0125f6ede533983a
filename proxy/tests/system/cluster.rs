//! A real PostgreSQL server of its own for each test: started, asked, killed, frozen, dumped, copied.
//!
//! It lives in a scratch folder on a free port. PostgreSQL refuses to run as root: where the tests do,
//! its programs run as the user `postgres`. A server that is dropped leaves no process behind.

mod pooler;
mod programs;
mod template;
mod tests;
mod wire;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::edge::{self, Edge, PATIENCE, wait_for};
use crate::load::{Delivered, Ledger, assert_all_once, wait_all};
pub use pooler::Pooler;
use programs::{give, program, server, succeed};
pub use wire::Wire;

/// The role that owns the database of the tests, and its password.
pub const USER: &str = "holdfast";
pub const PASSWORD: &str = "in-the-tests";

/// Small, and without the syncs that only a power cut would miss.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
fsync = off
shared_buffers = 16MB
max_connections = 20
superuser_reserved_connections = 5
max_wal_senders = 4
max_worker_processes = 4
wal_keep_size = 64MB
hot_standby = on
log_line_prefix = '%m [%p] %a '
";

/// What the settings leave for all but the superuser.
const CONNECTIONS: usize = 15;

/// One server with an empty database `holdfast`.
pub struct Cluster {
    scratch: TempDir,
    port: Port,
    settings: String,
    postmaster: Option<Child>,
    /// Other settings of the connection, such as `sslmode=verify-full`; in a URL they follow a `?`.
    pub parameters: String,
}

impl Cluster {
    /// A running server.
    pub fn start() -> Self {
        Self::prepare(scratch(), &template::first())
    }

    /// A running server whose files are below this folder.
    pub fn start_in(folder: &Path) -> Self {
        let scratch = tempfile::tempdir_in(folder).expect("scratch folder");
        Self::prepare(scratch, &template::first())
    }

    /// A running server that is not a copy of what [`Self::start`] makes.
    pub fn start_another() -> Self {
        Self::prepare(scratch(), &template::second())
    }

    fn prepare(scratch: TempDir, template: &Path) -> Self {
        let mut cluster = Self::empty(scratch);
        succeed(Command::new("cp").arg("-r").arg(template).arg(cluster.data()));
        cluster.own_data();
        cluster.run();
        cluster
    }

    fn empty(scratch: TempDir) -> Self {
        give(scratch.path());
        let port = Port::free();
        Self { scratch, port, settings: SETTINGS.to_owned(), postmaster: None, parameters: String::new() }
    }

    /// The data folder is its user's alone, or the server refuses it.
    fn own_data(&self) {
        give(&self.data());
        succeed(Command::new("chmod").args(["-R", "go="]).arg(self.data()));
    }

    /// Starts the server, and waits until it takes connections.
    pub fn run(&mut self) {
        assert!(self.postmaster.is_none(), "it runs already");
        let folder = self.folder().display().to_string();
        let address = format!("port = {}\nunix_socket_directories = '{folder}'\n", self.port());
        self.write("data/postgresql.conf", &format!("{}{address}", self.settings));
        self.write("data/pg_hba.conf", PERMISSIONS);
        let log = File::options().create(true).append(true).open(self.path("server.log")).expect("log");
        let child = server("postgres")
            .arg("-D")
            .arg(self.data())
            .current_dir(self.folder())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("postgres starts");
        self.postmaster = Some(child);
        let begun = Instant::now();
        while !self.psql("postgres", "select 1").status.success() {
            let ended = self.postmaster.as_mut().and_then(|child| child.try_wait().expect("postgres"));
            assert!(
                ended.is_none() && begun.elapsed() < PATIENCE,
                "PostgreSQL does not start: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Adds settings, and restarts the server with them.
    pub fn set_up(&mut self, settings: &str) {
        self.settings.push_str(settings);
        self.shut_down();
        self.run();
    }

    /// Ends it at once, without a checkpoint, as `pg_ctl stop -m immediate` does.
    pub fn stop(&mut self) {
        self.end(Signal::QUIT);
    }

    /// Ends it in order: connections are broken off, what was written is checkpointed.
    pub fn shut_down(&mut self) {
        self.end(Signal::INT);
    }

    /// `kill -9` of the server and all processes of its connections.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    fn end(&mut self, signal: Signal) {
        let Some(mut postmaster) = self.postmaster.take() else { return };
        let all = self.processes(postmaster.id());
        for pid in &all {
            send(*pid, Signal::CONT);
        }
        send(postmaster.id(), signal);
        let begun = Instant::now();
        while postmaster.try_wait().expect("postgres").is_none() {
            if begun.elapsed() > Duration::from_secs(20) {
                send(postmaster.id(), Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // What is left of them keeps the shared memory, which keeps the next start from its own.
        for pid in all {
            while self.is_ours(pid) {
                send(pid, Signal::KILL);
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// `SIGSTOP` for all its processes: connections are taken by the kernel, and nothing answers.
    pub fn freeze(&self) {
        for pid in self.processes(self.pid()) {
            send(pid, Signal::STOP);
        }
    }

    /// The end of [`Self::freeze`].
    pub fn thaw(&self) {
        for pid in self.processes(self.pid()) {
            send(pid, Signal::CONT);
        }
    }

    fn pid(&self) -> u32 {
        self.postmaster.as_ref().expect("the server runs").id()
    }

    /// The server and the processes that it began.
    fn processes(&self, postmaster: u32) -> Vec<u32> {
        let children = fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse::<u32>().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse::<u32>().ok()?;
            (parent == postmaster).then_some(pid)
        });
        [postmaster].into_iter().chain(children).collect()
    }

    /// Whether the process lives and works in the data folder, and so is not another with its number.
    fn is_ours(&self, pid: u32) -> bool {
        fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder == self.data())
    }

    pub fn port(&self) -> u16 {
        self.port.number
    }

    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Writes a file that the server may read.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        let mut file = File::options().create_new(true).write(true).mode(0o600).open(&path).expect(name);
        file.write_all(text.as_bytes()).expect(name);
        give(&path);
    }

    /// Gives a folder below the server's to its user.
    pub fn own(&self, name: &str) {
        give(&self.path(name));
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("server.log")).unwrap_or_default()
    }

    /// Where an edge finds it.
    pub fn url(&self) -> String {
        self.url_with(PASSWORD)
    }

    /// The same with another password.
    pub fn url_with(&self, password: &str) -> String {
        let parameters =
            if self.parameters.is_empty() { String::new() } else { format!("?{}", self.parameters) };
        format!("postgres://{USER}:{password}@127.0.0.1:{}/holdfast{parameters}", self.port())
    }

    /// The configuration of an edge on this database; `extra` goes below it.
    pub fn configuration(&self, extra: &str) -> String {
        edge::configuration(extra).replace("sqlite:holdfast.db", &self.url())
    }

    /// An edge on this database that runs and knows these links (CSV with header).
    pub fn edge(&self, extra: &str, links: &str) -> Edge {
        Edge::with(&self.configuration(extra), links)
    }

    /// How often each click of a [`Ledger`] is in the database.
    pub fn delivered(&self) -> Delivered {
        let rows = self
            .sql("select substr(query, 4), count(*) from holdfast.hits where query like 'id=%' group by 1");
        let row = |line: &str| {
            let (id, count) = line.split_once('|')?;
            Some((id.parse().ok()?, count.parse().ok()?))
        };
        rows.lines().map(|line| row(line).unwrap_or_else(|| panic!("{line:?}"))).collect()
    }

    /// Waits until all that was answered is delivered, then holds the two side by side.
    pub fn assert_exactly_once(&self, edge: &Edge, ledger: &Ledger) {
        wait_all(&ledger.answered(), || self.delivered());
        assert_all_once(&self.delivered(), ledger, &edge.log());
    }

    /// What the database answers its superuser, one row a line, columns with `|` between them.
    pub fn sql(&self, sql: &str) -> String {
        self.sql_in("holdfast", sql)
    }

    /// The same in another database.
    pub fn sql_in(&self, database: &str, sql: &str) -> String {
        let output = self.psql(database, sql);
        assert!(
            output.status.success(),
            "{sql}: {}\n{}",
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()
    }

    fn psql(&self, database: &str, sql: &str) -> Output {
        self.psql_as("postgres", database, sql)
    }

    fn psql_as(&self, user: &str, database: &str, sql: &str) -> Output {
        self.client("psql")
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql])
            .env("PGAPPNAME", "tests")
            .env("PGUSER", user)
            .output()
            .expect("psql runs")
    }

    /// Runs a file of SQL as the role that owns Holdfast's tables, as an administrator does; what psql said.
    pub fn run_sql(&self, sql: &str) -> Result<(), String> {
        self.write("printed.sql", sql);
        let output = self
            .client("psql")
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "holdfast", "-f", "printed.sql"])
            .env("PGUSER", USER)
            .output()
            .expect("psql runs");
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Takes the schema back to what an earlier release left: step 1 or 2.
    pub fn take_back(&self, step: u32) {
        if step < 2 {
            self.sql("drop table holdfast.orders");
        }
        self.sql(&format!(
            "drop function holdfast.domains_bury cascade;
             drop trigger domains_revise on holdfast.domains; drop trigger domains_tell on holdfast.domains;
             alter table holdfast.domains drop column revision;
             update holdfast.meta set value = '{step}' where key = 'schema'"
        ));
    }

    /// One of PostgreSQL's clients, as the superuser over the server's socket.
    fn client(&self, name: &str) -> Command {
        let mut command = program(name);
        command
            .env("PGHOST", self.folder())
            .env("PGPORT", self.port().to_string())
            .env("PGUSER", "postgres")
            .current_dir(self.folder())
            .stdin(Stdio::null());
        command
    }

    /// The answer to a question of one number.
    pub fn count(&self, sql: &str) -> i64 {
        let answer = self.sql(sql);
        answer.parse().unwrap_or_else(|_| panic!("{sql}: {answer:?}"))
    }

    /// Waits until the question has this answer.
    pub fn wait_count(&self, sql: &str, expected: i64) {
        let begun = Instant::now();
        loop {
            let last = self.count(sql);
            if last == expected {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{sql}: {last}, expected {expected}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Makes the server's count of transactions a higher one, as years of work do.
    pub fn age(&self) {
        self.sql("do $$ begin for i in 1..20000 loop perform pg_current_xact_id(); commit; end loop; end $$");
    }

    /// Who is connected as the edges are: the names of their connections.
    pub fn connections(&self) -> Vec<String> {
        let names = self.sql_in(
            "postgres",
            &format!("select application_name from pg_stat_activity where usename = '{USER}' order by 1"),
        );
        names.lines().map(str::to_owned).collect()
    }

    /// Breaks off the connections of edges.
    pub fn disconnect(&self) {
        self.sql_in(
            "postgres",
            &format!(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = '{USER}'"
            ),
        );
    }

    /// Sets a setting of the server, without a restart.
    pub fn set(&self, name: &str, value: &str) {
        self.sql_in("postgres", &format!("alter system set {name} = {value}"));
        self.sql_in("postgres", "select pg_reload_conf()");
        wait_for(name, || (self.sql_in("postgres", &format!("show {name}")) == value).then_some(()));
    }

    /// Runs `begin; {sql}` in a session that stays open until what is returned is dropped. A session that the
    /// server ends, for it would wait for an edge that waits for it, is begun again.
    pub fn hold(&self, sql: &str) -> Session {
        let mut session = self.holder(sql);
        wait_for("the session to hold what it shall", || {
            if session.child.try_wait().expect("psql's state").is_some() {
                session = self.holder(sql);
            }
            let sql = "select count(*) from pg_stat_activity
                       where application_name = 'holder' and state = 'idle in transaction'";
            (self.sql_in("postgres", sql) != "0").then_some(())
        });
        session
    }

    fn holder(&self, sql: &str) -> Session {
        let mut child = self
            .client("psql")
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "holdfast"])
            .env("PGAPPNAME", "holder")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("psql runs");
        let mut input = child.stdin.take().expect("piped");
        writeln!(input, "begin; {sql};").expect("psql reads");
        Session { child, input: Some(input) }
    }

    /// Takes all connections that edges may have, until what is returned is dropped.
    pub fn occupy(&self) -> Vec<Session> {
        let names = "select application_name from pg_stat_activity where backend_type = 'client backend'";
        let mut others = Vec::new();
        wait_for("all connections to be taken", || {
            let names = self.sql_in("postgres", names);
            let taken = names.lines().filter(|name| *name == "occupier").count();
            if taken == CONNECTIONS {
                return Some(());
            }
            // Those that found none free have ended.
            others.extend((taken..CONNECTIONS).map(|_| self.occupier()));
            self.disconnect();
            None
        });
        others
    }

    fn occupier(&self) -> Session {
        let mut child = self
            .client("psql")
            .args(["-X", "-q", "-d", "postgres"])
            .env("PGAPPNAME", "occupier")
            .env("PGUSER", "occupier")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("psql runs");
        let input = child.stdin.take();
        Session { child, input }
    }

    /// `pg_dump` of the database into a file, with more arguments.
    pub fn dump(&self, arguments: &[&str]) -> PathBuf {
        let file = tempfile::Builder::new().tempfile_in(self.folder()).expect("file").into_temp_path();
        let file = file.keep().expect("kept");
        give(&file);
        succeed(self.client("pg_dump").args(["-Fc", "-f"]).arg(&file).args(arguments).arg("holdfast"));
        file
    }

    /// `pg_restore` of a file that [`Self::dump`] of another server wrote, with more arguments.
    pub fn restore(&self, file: &Path, arguments: &[&str]) {
        let own = self.path("restored.dump");
        fs::copy(file, &own).expect("dump");
        give(&own);
        succeed(
            self.client("pg_restore").args(["--exit-on-error", "-d", "holdfast"]).args(arguments).arg(&own),
        );
    }

    /// `pg_restore` of those entries of a section that `wanted` picks by their line in the list.
    pub fn restore_part(&self, file: &Path, section: &str, wanted: impl Fn(&str) -> bool) {
        let section = format!("--section={section}");
        let entries = succeed(self.client("pg_restore").args(["--list", &section]).arg(file)).stdout;
        let entries = String::from_utf8(entries).expect("UTF-8");
        let wanted: String =
            entries.lines().filter(|entry| wanted(entry)).map(|entry| format!("{entry}\n")).collect();
        self.write("entries", &wanted);
        self.restore(file, &[&section, &format!("--use-list={}", self.path("entries").display())]);
    }

    /// Makes the database anew, empty.
    pub fn recreate(&self) {
        self.sql_in("postgres", "drop database if exists holdfast with (force)");
        self.sql_in("postgres", &format!("create database holdfast owner {USER}"));
    }

    /// A copy of the data folder, taken while the server is down.
    pub fn snapshot(&mut self) {
        self.shut_down();
        succeed(Command::new("cp").args(["-r"]).args([self.data(), self.path("snapshot")]));
        self.run();
    }

    /// Puts the last [`Self::snapshot`] back in place of what is there.
    pub fn put_back(&mut self) {
        self.stop();
        fs::remove_dir_all(self.data()).expect("data folder");
        fs::rename(self.path("snapshot"), self.data()).expect("snapshot");
        self.own_data();
        self.run();
    }

    /// A running replica of this server, made by `pg_basebackup` and fed by streaming replication.
    pub fn replica(&self) -> Self {
        let mut replica = Self::empty(scratch());
        succeed(
            self.client("pg_basebackup")
                .args([
                    "--checkpoint=fast",
                    "--wal-method=stream",
                    "--write-recovery-conf",
                    "--no-sync",
                    "-D",
                ])
                .arg(replica.path("data")),
        );
        replica.own_data();
        replica.run();
        self.wait_replayed(&replica);
        replica
    }

    /// Waits until the replica has all that was written here.
    pub fn wait_replayed(&self, replica: &Self) {
        let here = self.sql_in("postgres", "select pg_current_wal_flush_lsn()");
        let caught_up = format!("select pg_last_wal_replay_lsn() >= '{here}'");
        wait_for("the replica to catch up", || (replica.sql_in("postgres", &caught_up) == "t").then_some(()));
    }

    /// Makes a replica a server of its own.
    pub fn promote(&self) {
        self.sql_in("postgres", "select pg_promote()");
        wait_for("the promotion", || {
            (self.sql_in("postgres", "select pg_is_in_recovery()") == "f").then_some(())
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The tests ask over the socket; edges come over TCP and prove who they are.
const PERMISSIONS: &str = "
local all all trust
local replication all trust
host all all 127.0.0.1/32 scram-sha-256
";

/// A transaction that somebody left open.
pub struct Session {
    child: Child,
    input: Option<ChildStdin>,
}

impl Drop for Session {
    fn drop(&mut self) {
        // At the end of its input psql ends, and the server rolls its transaction back.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// A port that no other test of this machine takes while this lives.
pub struct Port {
    pub number: u16,
    _lock: File,
}

impl Port {
    /// Outside the range that the kernel gives to clients, so that it stays free between two starts.
    const RANGE: std::ops::Range<u16> = 17_000..27_000;

    pub fn free() -> Self {
        let folder = template::folder().join("ports");
        fs::create_dir_all(&folder).expect("folder of ports");
        let first = std::process::id() as u16 % (Self::RANGE.end - Self::RANGE.start);
        let ports = Self::RANGE.cycle().skip(usize::from(first) * 7).take(Self::RANGE.len());
        ports
            .filter_map(|number| {
                let lock = File::create(folder.join(number.to_string())).expect("lock file");
                lock.try_lock().ok()?;
                std::net::TcpListener::bind(("127.0.0.1", number)).ok()?;
                Some(Self { number, _lock: lock })
            })
            .next()
            .expect("a free port")
    }
}

fn scratch() -> TempDir {
    tempfile::tempdir().expect("scratch folder")
}

fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process id")).expect("not zero");
    // One that has ended needs no signal.
    let _ = kill_process(pid, signal);
}
