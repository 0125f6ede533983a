//! `holdfast init`: a folder with a database and a commented configuration to start from.

use std::fs;
use std::path::PathBuf;

use clap::Args;

use super::{Failure, output};
use crate::clock;
use crate::database::{self, Source};

/// Arguments of `init`.
#[derive(Args, Clone, Debug)]
pub struct Init {
    /// The folder to make
    #[arg(default_value = "holdfast")]
    dir: PathBuf,
}

/// The configuration to start from.
const STARTER: &str = include_str!("starter.toml");

impl Init {
    pub(super) fn run(self) -> Result<(), Failure> {
        let tried = format!("cannot make {}", self.dir.display());
        let occupied = fs::read_dir(&self.dir).is_ok_and(|mut entries| entries.next().is_some());
        if occupied {
            return Err(Failure::Other(format!(
                "{tried}: it is there already and not empty; name another folder"
            )));
        }
        fs::create_dir_all(self.dir.join("data")).map_err(|error| Failure::of(&tried, &error))?;
        database::create(&Source::Sqlite(self.dir.join("holdfast.db")), clock::now())
            .map_err(|error| Failure::of(&tried, &error))?;
        fs::write(self.dir.join("holdfast.toml"), STARTER).map_err(|error| Failure::of(&tried, &error))?;
        let dir = self.dir.display();
        output::line(format_args!(
            "Made {dir}/ with holdfast.toml, an empty database holdfast.db and the folder data/.\n\n\
             Next:\n  \
             cd {dir}\n  \
             edit holdfast.toml            the hosts of your tracking domain\n  \
             holdfast links import FILE    CSV with the columns namespace, token, url\n  \
             holdfast check --connect\n  \
             holdfast serve"
        ));
        Ok(())
    }
}
