//! Who is measured: the floor, bare hyper, Holdfast, nginx and HAProxy, each started in the same way by every scenario.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;

use crate::campaign::Campaign;
use crate::edge::{self, Edge, Mode};
use crate::failure::{Failure, Result};
use crate::haproxy::Haproxy;
use crate::nginx::Nginx;
use crate::nginx_lua::NginxLua;
use crate::peer::make_folder;
use crate::probe::wait_for_redirect;
use crate::process::{Running, SERVER};
use crate::report::leave_out;

/// nginx takes ten seconds to build a map of a million links.
const START_PATIENCE: Duration = Duration::from_secs(300);
/// What a load left to do behind the answers.
pub(crate) const QUIET_PATIENCE: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Name {
    /// The responder that does no work
    Floor,
    /// The same, and each turn's requests are written down and synced before they are answered
    FloorSynced,
    /// The same, and each turn's requests are written down before they are answered
    FloorWritten,
    /// hyper with nothing behind it
    Bare,
    /// Holdfast
    Holdfast,
    /// nginx with a map and a buffered log
    Nginx,
    /// nginx with Lua that asks Redis, and a buffered log
    NginxLua,
    /// HAProxy with a map and no log
    Haproxy,
    /// HAProxy with a map and its log to a socket that is read
    HaproxyLog,
}

impl Name {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::FloorSynced => "floor-synced",
            Self::FloorWritten => "floor-written",
            Self::Bare => "hyper",
            Self::Holdfast => "holdfast",
            Self::Nginx => "nginx",
            Self::NginxLua => "nginx-lua",
            Self::Haproxy => "haproxy",
            Self::HaproxyLog => "haproxy-log",
        }
    }

    /// The floor that records what the journal's mode promises.
    pub(crate) fn recording_floor(mode: Mode) -> Self {
        match mode {
            Mode::Power => Self::FloorSynced,
            Mode::Process => Self::FloorWritten,
        }
    }

    /// Whether its answers lead to each link's own target.
    pub(crate) fn has_links(self) -> bool {
        !matches!(self, Self::Floor | Self::FloorSynced | Self::FloorWritten | Self::Bare)
    }

    /// Whether it can take part; where it can't, that is left out of the run.
    pub(crate) fn is_available(self) -> bool {
        let (available, package) = match self {
            Self::Nginx => (Nginx::is_installed(), " nginx-light"),
            Self::NginxLua => (
                NginxLua::is_installed(),
                "s nginx-light, libnginx-mod-http-lua, redis-server and lua-nginx-redis",
            ),
            Self::Haproxy | Self::HaproxyLog => (Haproxy::is_installed(), " haproxy"),
            Self::Floor | Self::FloorSynced | Self::FloorWritten | Self::Bare | Self::Holdfast => (true, ""),
        };
        if !available {
            leave_out(format!("{}, which is not installed (Debian's package{package})", self.label()));
        }
        available
    }
}

/// What all competitors of a run are started with.
pub(crate) struct Setup<'a> {
    pub(crate) campaign: Campaign,
    pub(crate) mode: Mode,
    /// The Holdfast to measure; without it the workspace's is built.
    pub(crate) holdfast: Option<&'a Path>,
    pub(crate) scratch: PathBuf,
}

impl Setup<'_> {
    /// Starts it on the servers' core and waits until it redirects and is quiet.
    pub(crate) fn start(&self, name: Name, address: SocketAddr) -> Result<Running> {
        println!("starting {}", name.label());
        let folder = self.scratch.join(name.label());
        let listen = address.to_string();
        let running = match name {
            Name::Floor => own("floor", &["--listen".as_ref(), listen.as_ref()])?,
            Name::FloorSynced | Name::FloorWritten => {
                let folder =
                    make_folder(&folder).map_err(Failure::at(format!("cannot make {}", folder.display())))?;
                let promise = if name == Name::FloorSynced { "synced" } else { "written" };
                let tape = folder.join("tape");
                let options = ["--promise".as_ref(), promise.as_ref(), "--tape".as_ref(), tape.as_os_str()];
                own("floor", &[&["--listen".as_ref(), listen.as_ref()], &options[..]].concat())?
            }
            Name::Bare => own("bare", &["--listen".as_ref(), listen.as_ref()])?,
            Name::Holdfast => {
                let binary = edge::binary(self.holdfast)?;
                Edge::prepare(&binary, &folder, &self.campaign, self.mode, address)?.start(SERVER)?
            }
            Name::Nginx => Nginx::prepare(&folder, &self.campaign, address)?.start(SERVER)?,
            Name::NginxLua => NginxLua::prepare(&folder, &self.campaign, address)?.start(SERVER)?,
            Name::Haproxy => Haproxy::prepare(&folder, &self.campaign, address)?.start(SERVER)?,
            Name::HaproxyLog => {
                let folder =
                    make_folder(&folder).map_err(Failure::at(format!("cannot make {}", folder.display())))?;
                let (socket, file) = (folder.join("log.sock"), folder.join("log"));
                let reader = own(
                    "log-reader",
                    &["--socket".as_ref(), socket.as_os_str(), "--file".as_ref(), file.as_os_str()],
                )?;
                Haproxy::prepare_logging(&folder, &self.campaign, address, &socket)?
                    .start(SERVER)?
                    .with(reader)
            }
        };
        // Without links there is one answer for all, which is that of the first.
        let last = if name.has_links() { self.campaign.links - 1 } else { 0 };
        wait_until_ready(running, address, &self.campaign, last)
    }
}

/// Starts one of this program's own servers.
fn own(responder: &str, options: &[&OsStr]) -> Result<Running> {
    let program = std::env::current_exe().map_err(Failure::at("cannot find this program"))?;
    let mut command = Command::new(program);
    command.arg(responder).args(options).stdin(Stdio::null());
    Running::start(&mut command, SERVER)
}

/// Waits until the first link and link `last` are redirected and nothing is left to do.
pub(crate) fn wait_until_ready(
    mut running: Running,
    address: SocketAddr,
    campaign: &Campaign,
    last: u64,
) -> Result<Running> {
    for i in [0, last] {
        wait_for_redirect(&mut running, address, campaign, i, START_PATIENCE)?;
    }
    running.wait_until_quiet(QUIET_PATIENCE)?;
    Ok(running)
}
