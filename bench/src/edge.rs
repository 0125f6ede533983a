//! One Holdfast in a scratch folder: initialised, filled with a campaign, started and stopped.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::admin::Admin;
use crate::campaign::{Campaign, NAMESPACE, PREFIX};
use crate::failure::{Failure, Result};
use crate::probe::wait_for_redirect;
use crate::process::{Cores, Running, output};

/// The journal's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// An answer waits until its record is synced: the default
    Power,
    /// An answer waits until its record is written
    Process,
}

impl Mode {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Power => "power",
            Self::Process => "process",
        }
    }
}

/// Longer than any import or drain should take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A Holdfast with its folder; nothing runs until [`Edge::start`].
pub(crate) struct Edge {
    binary: PathBuf,
    folder: PathBuf,
    address: SocketAddr,
}

impl Edge {
    /// Makes the folder, its database and configuration, and imports the campaign.
    pub(crate) fn prepare(
        binary: &Path,
        folder: &Path,
        campaign: &Campaign,
        mode: Mode,
        address: SocketAddr,
    ) -> Result<Self> {
        Self::prepare_on("sqlite:holdfast.db", binary, folder, campaign, mode, address)
    }

    /// The same with a database of one's own; its tables are made where they are missing.
    pub(crate) fn prepare_on(
        database: &str,
        binary: &Path,
        folder: &Path,
        campaign: &Campaign,
        mode: Mode,
        address: SocketAddr,
    ) -> Result<Self> {
        let edge = Self { binary: binary.to_owned(), folder: folder.to_owned(), address };
        let path = folder.display();
        fs::create_dir_all(edge.data()).map_err(Failure::at(format!("cannot make {path}")))?;
        let text = configuration(mode, address, database);
        fs::write(edge.configuration(), text).map_err(Failure::at(format!("cannot write into {path}")))?;

        let csv = folder.join("links.csv");
        campaign.write_csv(&csv).map_err(Failure::at(format!("cannot write {}", csv.display())))?;
        edge.import(&csv)?;
        fs::remove_file(&csv).map_err(Failure::at(format!("cannot remove {}", csv.display())))?;
        Ok(edge)
    }

    /// Brings the links of `csv` into the database.
    pub(crate) fn import(&self, csv: &Path) -> Result<()> {
        let mut import = Command::new(&self.binary);
        import.args(["links", "import", "--create"]).arg(csv).arg("--config").arg(self.configuration());
        output(&mut import, Cores::All).map(|_| ())
    }

    /// Holds journals and database side by side; fails where they do not agree.
    pub(crate) fn reconcile(&self, cores: Cores) -> Result<Duration> {
        let mut reconcile = Command::new(&self.binary);
        reconcile.arg("reconcile").arg("--config").arg(self.configuration());
        let begin = Instant::now();
        output(&mut reconcile, cores)?;
        Ok(begin.elapsed())
    }

    /// Forgets journals and links, as an edge that was never started.
    pub(crate) fn forget(&self) -> Result<()> {
        let data = self.data();
        let renew = || {
            fs::remove_dir_all(&data)?;
            fs::create_dir(&data)
        };
        renew().map_err(Failure::at(format!("cannot empty {}", data.display())))
    }

    pub(crate) fn start(&self, cores: Cores) -> Result<Running> {
        let mut command = Command::new(&self.binary);
        command.arg("serve").arg("--config").arg(self.configuration());
        let path = self.folder.join("edge.log");
        let log = fs::File::create(&path).map_err(Failure::at(format!("cannot make {}", path.display())))?;
        Running::start(command.stdout(Stdio::null()).stderr(log), cores)
    }

    /// Runs it once until its snapshot is on disk, then moves the database out of its way.
    pub(crate) fn settle_and_take_database_away(&self, campaign: &Campaign) -> Result<()> {
        let mut running = self.start(Cores::All)?;
        for i in [0, campaign.links - 1] {
            wait_for_redirect(&mut running, self.address, campaign, i, PATIENCE)?;
        }
        running.wait_until_quiet(PATIENCE)?;
        running.stop(PATIENCE)?;
        let move_away = || {
            let away = self.folder.join("away");
            fs::create_dir_all(&away)?;
            for entry in fs::read_dir(&self.folder)? {
                let entry = entry?;
                if entry.file_name().as_encoded_bytes().starts_with(b"holdfast.db") {
                    fs::rename(entry.path(), away.join(entry.file_name()))?;
                }
            }
            Ok(())
        };
        move_away().map_err(Failure::at("cannot move the database away"))
    }

    /// Adds tables that the configuration does not have yet; they count from the next start on.
    pub(crate) fn add_settings(&self, tables: &str) -> Result<()> {
        let file = self.configuration();
        let add = || OpenOptions::new().append(true).open(&file)?.write_all(tables.as_bytes());
        add().map_err(Failure::at(format!("cannot write {}", file.display())))
    }

    /// Adds settings of the journal; they count from the next start on.
    pub(crate) fn add_journal_settings(&self, settings: &str) -> Result<()> {
        let file = self.configuration();
        let change = || {
            let text = fs::read_to_string(&file)?;
            fs::write(&file, text.replacen("[journal]\n", &format!("[journal]\n{settings}"), 1))
        };
        change().map_err(Failure::at(format!("cannot write {}", file.display())))
    }

    /// Changes the language of the site's pages; counts from the next start or reload on.
    pub(crate) fn set_language(&self, language: &str) -> Result<()> {
        const SITE: &str = "[[site]]\n";
        let file = self.configuration();
        let change = || {
            let text = fs::read_to_string(&file)?;
            let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("language = ")).collect();
            let text = kept.join("\n") + "\n";
            fs::write(&file, text.replacen(SITE, &format!("{SITE}language = \"{language}\"\n"), 1))
        };
        change().map_err(Failure::at(format!("cannot write {}", file.display())))
    }

    /// Answers `host` over TLS at `address`, too, with the certificates of `folder`; counts from the next
    /// start on.
    pub(crate) fn secure(&self, host: &str, address: SocketAddr, folder: &Path) -> Result<()> {
        let file = self.configuration();
        let change = || {
            let text = fs::read_to_string(&file)?
                .replacen("threads = 1\n", &format!("threads = 1\nhttps = [\"{address}\"]\n"), 1)
                .replacen("hosts = [", &format!("hosts = [\"{host}\", "), 1);
            fs::write(&file, format!("{text}\n[tls]\nfolder = \"{}\"\n", folder.display()))
        };
        change().map_err(Failure::at(format!("cannot write {}", file.display())))
    }

    pub(crate) fn admin(&self) -> Admin {
        admin(self.address)
    }

    /// Where its journals are.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join("holdfast.toml")
    }
}

/// One data thread, the admin listener on the next port, no caps on connections, look-ups and unknown
/// tokens, for all come from one source; everything else as it is by default.
fn configuration(mode: Mode, address: SocketAddr, database: &str) -> String {
    let mode = mode.label();
    let admin = admin(address).address;
    format!(
        "\
edge = \"bench\"
data = \"data\"

[listen]
http = [\"{address}\"]
threads = 1

[database]
url = \"{database}\"

[journal]
mode = \"{mode}\"

[admin]
listen = \"{admin}\"

[limits]
connections_max = 1000000
connections_per_source = 1000000
misses_per_source = 1000000

[record]
unknown_per_source = 1000000
unknown_per_site = 100000000

[[site]]
name = \"bench\"
hosts = [\"127.0.0.1\"]
namespace = \"{NAMESPACE}\"

[[site.route]]
path = \"{PREFIX}{{token}}\"
kind = \"click\"
"
    )
}

/// The admin listener of the edge that answers at `address`.
pub(crate) fn admin(address: SocketAddr) -> Admin {
    Admin { address: SocketAddr::new(address.ip(), address.port() + 1) }
}

/// The release binary at `given`, or the one of this workspace, built first.
pub(crate) fn binary(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--locked", "--package", "holdfast"]).current_dir(workspace());
    output(&mut build, Cores::All)?;
    Ok(target().join("release/holdfast"))
}

/// The folder of the whole project.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}
