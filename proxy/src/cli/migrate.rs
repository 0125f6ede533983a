//! `holdfast migrate`: the schema of Holdfast's tables, made, brought up to date, or printed.

use clap::Args;

use super::serve::load;
use super::{Configured, Failure, output};
use crate::causes::chain;
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
    /// Print the SQL of the steps that are missing instead of taking them
    #[arg(long, conflicts_with = "create")]
    print: bool,
}

impl Migrate {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = load(&self.configured.config)?;
        let source = &config.database.source;
        if self.print {
            let found = match database::open(source, Access::ReadOnly, config.database.timeout) {
                Ok(database) => database.schema(),
                Err(error) => {
                    let why = chain(&error).replace(char::is_control, " ");
                    output::line(format_args!("-- {source} cannot be asked ({why}): every step follows.\n"));
                    0
                }
            };
            let steps = database::steps(source, found);
            if steps.is_empty() {
                output::line(format_args!("-- {source} is up to date."));
            }
            for step in steps {
                output::line(format_args!("{step}\n"));
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
