//! A private PostgreSQL server in a scratch folder: Debian's programs, run by a user that they accept.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::failure::{Failure, Result};
use crate::process::{Cores, CpuTimes, Running, output};

/// Durable as by default (`fsync`, `synchronous_commit`). No checkpoint and no vacuum comes by itself,
/// for it would fall into whoever's turn it is.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
shared_buffers = 256MB
min_wal_size = 4GB
max_wal_size = 16GB
checkpoint_timeout = 1h
autovacuum = off
";
/// The same, for the reports.
pub(crate) const ABOUT: &str = "fsync and synchronous_commit on, shared_buffers 256 MB, neither vacuum nor \
    checkpoint of its own accord, TCP over loopback";

const PROGRAMS: &str = "/usr/lib/postgresql";
const SUPERUSER: &str = "postgres";
/// A server that was killed reads its log first.
const START_PATIENCE: Duration = Duration::from_secs(120);
const END_PATIENCE: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(5);

/// One server; it ends when this is dropped.
pub(crate) struct Cluster {
    folder: PathBuf,
    port: u16,
    cores: Cores,
    running: Option<Running>,
}

impl Cluster {
    /// Makes a server in a new folder, and starts it on `cores`.
    pub(crate) fn start(folder: &Path, port: u16, cores: Cores) -> Result<Self> {
        let failure = || Failure::at(format!("cannot make {}", folder.display()));
        fs::create_dir_all(folder).map_err(failure())?;
        let folder = folder.canonicalize().map_err(failure())?;
        if let Some((user, group)) = user()? {
            chown(&folder, Some(user), Some(group)).map_err(failure())?;
        }
        let mut cluster = Self { folder, port, cores, running: None };
        let mut initdb = server_program("initdb")?;
        initdb.args(["--username", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "-D"]);
        output(initdb.arg(cluster.data()).current_dir(&cluster.folder), Cores::All)?;
        let configuration = cluster.data().join("postgresql.conf");
        let text = format!("{SETTINGS}port = {port}\n");
        fs::write(&configuration, text)
            .map_err(Failure::at(format!("cannot write {}", configuration.display())))?;
        cluster.run()?;
        Ok(cluster)
    }

    /// Starts it again after [`Self::kill`].
    pub(crate) fn run(&mut self) -> Result<()> {
        let log = self.folder.join("server.log");
        let failure = || Failure::at(format!("cannot write {}", log.display()));
        let log_file = File::options().create(true).append(true).open(&log).map_err(failure())?;
        let mut command = server_program("postgres")?;
        command.arg("-D").arg(self.data()).current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file);
        let mut running = Running::start(&mut command, self.cores)?;
        let deadline = Instant::now() + START_PATIENCE;
        let mut ready = program("pg_isready")?;
        ready.args(["--quiet", "--host=127.0.0.1", "--port", &self.port.to_string()]);
        while !ready.status().map_err(Failure::at("cannot run pg_isready"))?.success() {
            running.still_runs()?;
            if Instant::now() > deadline {
                return Err(Failure::new(format!("PostgreSQL does not start: see {}", log.display())));
            }
            sleep(STEP);
        }
        self.running = Some(running);
        Ok(())
    }

    /// `kill -9` of the server and of all processes of its connections.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.end(Signal::KILL)
    }

    /// `SIGSTOP` for all its processes: the kernel takes connections, and nothing answers.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.server()?.signal_all(Signal::STOP);
        Ok(())
    }

    /// The end of [`Self::freeze`].
    pub(crate) fn thaw(&self) -> Result<()> {
        self.server()?.signal_all(Signal::CONT);
        Ok(())
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        running.signal_all(Signal::CONT);
        let pids = running.signal_all(signal);
        let deadline = Instant::now() + END_PATIENCE;
        // What is left of them holds the shared memory, without which the next start fails.
        while running.still_runs().is_ok() || pids.iter().any(|&pid| self.works_here(pid)) {
            if Instant::now() > deadline {
                return Err(Failure::new(format!("PostgreSQL did not end within {END_PATIENCE:?}")));
            }
            sleep(STEP);
        }
        Ok(())
    }

    /// Whether the process lives in the data folder, and so is not another that has its number now.
    fn works_here(&self, pid: u32) -> bool {
        fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder == self.data())
    }

    /// CPU time of the server with all processes of its connections.
    pub(crate) fn cpu(&self) -> Result<CpuTimes> {
        self.server()?.cpu()
    }

    fn server(&self) -> Result<&Running> {
        self.running.as_ref().ok_or_else(|| Failure::new("PostgreSQL does not run"))
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Where an edge finds one of its databases.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}@127.0.0.1:{}/{database}", self.port)
    }

    /// `psql` with a command of its own or SQL.
    pub(crate) fn psql(&self, database: &str, command: &str) -> Result<Command> {
        let mut psql = program("psql")?;
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]);
        psql.arg("--dbname").arg(self.url(database)).args(["--command", command]);
        Ok(psql)
    }

    /// What the database answers.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> Result<String> {
        Ok(output(&mut self.psql(database, sql)?, Cores::All)?.0.trim().to_owned())
    }

    /// How many rows a table has.
    pub(crate) fn rows(&self, database: &str, table: &str) -> Result<u64> {
        let text = self.sql(database, &format!("select count(*) from {table}"))?;
        text.parse().map_err(|_| Failure::new(format!("psql says {text}")))
    }

    /// `15.14`, as the server says.
    pub(crate) fn version(&self) -> Result<String> {
        let text = self.sql(SUPERUSER, "show server_version")?;
        Ok(text.split(' ').next().unwrap_or_default().to_owned())
    }

    /// An empty database.
    pub(crate) fn create(&self, database: &str) -> Result<()> {
        self.sql(SUPERUSER, &format!("create database {database}")).map(|_| ())
    }

    /// Ends its connections, too.
    pub(crate) fn remove(&self, database: &str) -> Result<()> {
        self.sql(SUPERUSER, &format!("drop database {database} with (force)")).map(|_| ())
    }

    /// Everything to the disk, so that nobody pays for what somebody else wrote.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        self.sql(SUPERUSER, "checkpoint").map(|_| ())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Not at its leisure, but so that it gives its shared memory back.
        let _ = self.end(Signal::QUIT);
    }
}

/// A program of the newest PostgreSQL that is installed.
fn program(name: &str) -> Result<Command> {
    let versions = fs::read_dir(PROGRAMS).into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse::<u32>().ok()?;
            let folder = entry.path().join("bin");
            folder.join("postgres").exists().then_some((version, folder))
        })
        .max();
    let (_, folder) =
        newest.ok_or_else(|| Failure::new("PostgreSQL is missing: install Debian's package postgresql"))?;
    Ok(Command::new(folder.join(name)))
}

/// The same, run as the server's user.
fn server_program(name: &str) -> Result<Command> {
    let mut command = program(name)?;
    if let Some((user, group)) = user()? {
        command.uid(user).gid(group);
    }
    Ok(command)
}

/// User and group that run the server; none where we may ourselves, for PostgreSQL refuses only root.
fn user() -> Result<Option<(u32, u32)>> {
    if !rustix::process::getuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").map_err(Failure::at("cannot read /etc/passwd"))?;
    let found = users.lines().find_map(|line| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    let missing = || Failure::new("there is no user postgres, which Debian's package postgresql makes");
    found.map(Some).ok_or_else(missing)
}
