//! Debian's nginx with Lua that asks Redis for each click's target: what people build by hand.
//!
//! Fair: one worker and one Redis on the same core, connections to Redis kept in a pool over a Unix
//! socket, the same path, target, header fields and buffered log as nginx with a map. Redis' CPU counts,
//! for each click waits for it. Unfair to it: no cache in front of Redis. Unfair to Holdfast: neither
//! Redis nor the log survives the loss of power.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::campaign::{Campaign, PREFIX};
use crate::failure::{Failure, Result};
use crate::nginx;
use crate::peer::{fill, make_folder, write_links};
use crate::process::{Cores, Running, installed, output};

/// nginx and Redis in one folder.
pub(crate) struct NginxLua {
    folder: PathBuf,
}

/// Where Debian keeps nginx's modules and the client of Redis, under its own name and as its author has it.
const MODULES: &str = "/usr/lib/nginx/modules";
const CLIENTS: [(&str, &str); 2] = [
    ("/usr/share/lua/5.1/nginx/redis.lua", "nginx.redis"),
    ("/usr/share/lua/5.1/resty/redis.lua", "resty.redis"),
];
const PATIENCE: Duration = Duration::from_secs(10);

impl NginxLua {
    pub(crate) fn is_installed() -> bool {
        let module = Path::new(MODULES).join("ngx_http_lua_module.so");
        ["nginx", "redis-server", "redis-cli"].into_iter().all(installed)
            && module.exists()
            && client().is_some()
    }

    pub(crate) fn prepare(folder: &Path, campaign: &Campaign, address: SocketAddr) -> Result<Self> {
        let client = client().ok_or_else(|| Failure::new("Debian's package lua-nginx-redis is missing"))?;
        let write = || -> io::Result<PathBuf> {
            let folder = make_folder(folder)?;
            // redis-cli --pipe reads commands.
            write_links(&folder.join("links.redis"), campaign, "SET ", "\r")?;
            let words = [
                ("ADDRESS", address.to_string()),
                ("FOLDER", folder.display().to_string()),
                ("MODULES", MODULES.to_owned()),
                ("PREFIX", PREFIX.to_owned()),
                ("REDIS_MODULE", client.to_owned()),
                ("SOCKET", socket(&folder).display().to_string()),
            ];
            fs::write(folder.join("nginx.conf"), fill(include_str!("../peers/nginx-lua.conf"), &words))?;
            fs::write(folder.join("redis.conf"), fill(include_str!("../peers/redis.conf"), &words))?;
            Ok(folder)
        };
        let folder = write().map_err(Failure::at("cannot prepare nginx with Lua"))?;
        Ok(Self { folder })
    }

    /// Starts Redis, fills it with the links, and starts nginx.
    pub(crate) fn start(&self, cores: Cores) -> Result<Running> {
        let mut command = Command::new("redis-server");
        let mut redis =
            Running::start(command.arg(self.folder.join("redis.conf")).stdin(Stdio::null()), cores)?;
        let socket = socket(&self.folder);
        let deadline = Instant::now() + PATIENCE;
        while !socket.exists() {
            redis.still_runs()?;
            if Instant::now() > deadline {
                return Err(Failure::new(format!("redis-server made no socket within {PATIENCE:?}")));
            }
            sleep(Duration::from_millis(10));
        }
        let links = self.folder.join("links.redis");
        let commands = File::open(&links).map_err(Failure::at(format!("cannot read {}", links.display())))?;
        output(Command::new("redis-cli").arg("-s").arg(&socket).arg("--pipe").stdin(commands), Cores::All)?;
        Ok(nginx::start(&self.folder, cores)?.with(redis))
    }
}

fn client() -> Option<&'static str> {
    CLIENTS.iter().find(|(file, _)| Path::new(file).exists()).map(|&(_, module)| module)
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("redis.sock")
}
