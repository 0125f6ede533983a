//! `holdfast migrate`: the schema of Holdfast's tables, made, brought up to date, or printed.

use clap::Args;

use super::serve::load;
use super::{Configured, Failure, output};
use crate::clock;
use crate::database::{self, Access, Migrate as Mode};

/// Arguments of `migrate`.
#[derive(Args, Clone, Debug)]
pub struct Migrate {
    #[command(flatten)]
    configured: Configured,
    /// Make the schema, or the file, where there is none
    #[arg(long)]
    create: bool,
    /// Print the SQL of every step instead of taking those that are missing
    #[arg(long, conflicts_with = "create")]
    print: bool,
}

impl Migrate {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = load(&self.configured.config)?;
        let source = &config.database.source;
        if self.print {
            for step in database::steps(source) {
                output::line(format_args!("{}\n", step.trim_end()));
            }
            return Ok(());
        }
        let failed = |error: &database::Error| Failure::of("cannot migrate", error);
        if self.create && !database::exists(source).map_err(|error| failed(&error))? {
            database::create(source, clock::now()).map_err(|error| failed(&error))?;
            output::line(format_args!("Made Holdfast's tables in {source}."));
            return Ok(());
        }
        let taken = database::open(source, Access::ReadWrite, config.database.timeout)
            .and_then(|mut database| database.migrate(Mode::Auto))
            .map_err(|error| failed(&error))?;
        match taken {
            0 => output::line(format_args!("{source} is up to date.")),
            taken => {
                output::line(format_args!("{source}: {} taken.", output::count(u64::from(taken), "step")))
            }
        }
        Ok(())
    }
}
