//! `holdfast demo`: the main job with nothing to set up, in a scratch folder.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::links::{self, Format};
use super::{Failure, output, serve};
use crate::app::{self, Addresses, Origin, Start};
use crate::causes::chain;
use crate::clock;
use crate::database::{self, Source};

/// Arguments of `demo`.
#[derive(Args, Clone, Debug)]
pub struct Demo {
    /// Where to answer clicks
    #[arg(long, default_value = "127.0.0.1:8080")]
    http: std::net::SocketAddr,
    /// Where to answer `holdfast status`, `holdfast window` and Prometheus
    #[arg(long, default_value = "127.0.0.1:9180")]
    admin: std::net::SocketAddr,
    /// Keep everything in this folder instead of a scratch folder that is removed at the end
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

const LINKS: &str = include_str!("../../../docs/sample/links.csv");
const LOGO: &[u8] = include_bytes!("../../../docs/sample/logo.svg");

impl Demo {
    pub(super) fn run(self) -> Result<(), Failure> {
        let folder = match &self.keep {
            Some(folder) => folder.clone(),
            None => std::env::temp_dir().join(format!("holdfast-demo-{}", std::process::id())),
        };
        let done = self.run_in(&folder);
        if self.keep.is_none() {
            // What cannot be removed lies in the system's folder for such things.
            let _ = fs::remove_dir_all(&folder);
        }
        done
    }

    fn run_in(&self, folder: &Path) -> Result<(), Failure> {
        let tried = format!("cannot make the demo's folder {}", folder.display());
        let failed = |error: &dyn std::error::Error| Failure::of(&tried, error);
        fs::create_dir_all(folder.join("data")).map_err(|error| failed(&error))?;
        let database = Source::Sqlite(folder.join("holdfast.db"));
        if !database::exists(&database).map_err(|error| failed(&error))? {
            database::create(&database, clock::now()).map_err(|error| failed(&error))?;
        }
        fs::write(folder.join("logo.svg"), LOGO).map_err(|error| failed(&error))?;
        fs::write(folder.join("links.csv"), LINKS).map_err(|error| failed(&error))?;
        let file = folder.join("holdfast.toml");
        fs::write(&file, self.configuration()).map_err(|error| failed(&error))?;

        let config = serve::load(&file)?;
        serve::log_to_stderr(&config);
        let imported =
            links::import(&folder.join("links.csv"), Format::Csv, &database, &links::Manner::default())?;
        let origin = Origin { file, environment: Vec::new() };
        app::run(config, Start { origin, takeover: false }, |addresses| {
            greet(addresses, imported.rows);
        })
        .map_err(|error| Failure::Other(format!("cannot run the demo: {}", by_flag(&chain(&error)))))
    }

    fn configuration(&self) -> String {
        format!(
            r##"edge = "demo"
data = "data"
[listen]
http = ["{http}"]
drain_min = "100ms"
[admin]
listen = "{admin}"
[database]
url = "sqlite:holdfast.db"
[log]
level = "warn"
[[site]]
name = "demo"
hosts = ["127.0.0.1", "localhost"]
namespace = "demo"
preset = "dotdigital"
[[site.route]]
path = "/c/{{token}}"
kind = "click"
[[site.route]]
path = "/o/{{token}}"
kind = "open"
[site.brand]
name = "Fernhill Garden"
colour = "#2f7d4f"
logo = "logo.svg"
"##,
            http = self.http,
            admin = self.admin,
        )
    }
}

/// A fault with the demo's own flags in place of the settings that they stand for.
fn by_flag(fault: &str) -> String {
    fault.replace("listen.http", "--http").replace("admin.listen", "--admin")
}

fn greet(addresses: &Addresses, links: u64) {
    let http = addresses.http.first().map(ToString::to_string).unwrap_or_default();
    let admin = &addresses.admin;
    // As it was called, so that the lines can be copied: `cargo run` puts nothing on the PATH.
    let program = std::env::args().next().unwrap_or_else(|| "holdfast".to_owned());
    let flag = if admin == "127.0.0.1:9180" { String::new() } else { format!(" --admin {admin}") };
    output::line(format_args!(
        "Holdfast is running with {}. Three to click:

  http://{http}/c/catalogue                       a plain link
  http://{http}/FHG-1A2B3-9KQ2XW-4TZ81A-1/c.aspx  a link with captures, added to its target as dm_i
  http://{http}/c/winter-sale                     one whose time is over

Metrics are at http://{admin}/metrics.

Now take the database away, in another terminal:

  {program} window begin --until 1h{flag}

and click again: the links go on working. http://{http}/c/no-such-link, which nobody here knows,
shows the maintenance page until

  {program} window end{flag}

`{program} status{flag}` shows both. Ctrl-C ends the demo.",
        output::count(links, "sample link")
    ));
}
