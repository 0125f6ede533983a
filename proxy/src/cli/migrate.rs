//! `holdfast migrate`: the schema of Holdfast's tables, made, brought up to date, or printed.

use std::time::Duration;

use clap::Args;

use super::serve::load;
use super::{Configured, Failure, output};
use crate::causes::chain;
use crate::clock;
use crate::database::{self, Access, Migrate as Mode, Source};

/// Arguments of `migrate`.
#[derive(Args, Clone, Debug)]
pub struct Migrate {
    #[command(flatten)]
    configured: Configured,
    /// Make the schema, or the file, where there is none
    #[arg(long)]
    create: bool,
    /// Print the SQL of the steps that are missing instead of taking them; of all where nobody can be asked
    #[arg(long, conflicts_with = "create")]
    print: bool,
}

impl Migrate {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = load(&self.configured.config)?;
        let source = &config.database.source;
        if self.print {
            return print(source, config.database.timeout);
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

/// A word for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Prints what the database lacks, for whoever may change it.
fn print(source: &Source, timeout: Duration) -> Result<(), Failure> {
    let (from, why) = match database::standing(source, timeout) {
        Ok(0) => (0, format!("{source} has nothing of Holdfast's yet: this makes all of it.")),
        Ok(from) => (from, format!("{source} is at step {from} of the schema: this is what comes after it.")),
        Err(error @ (database::Error::Missing(_) | database::Error::Unavailable(_))) => {
            let why = chain(&error).replace(['\n', '\r'], " ");
            (0, format!("This is all of the schema, from nothing, for nobody could be asked: {why}."))
        }
        Err(error) => return Err(Failure::of("cannot say what is missing", &error)),
    };
    let Some(sql) = database::script(source, from) else {
        output::line(format_args!("-- {source} is up to date, at step {from} of the schema."));
        return Ok(());
    };
    let how = match source {
        // A database that this makes holds people's addresses: nobody else's to read.
        Source::Sqlite(path) => {
            format!("(umask 077; sqlite3 -bail {} < FILE)", quoted(&path.display().to_string()))
        }
        Source::Postgres(_) => {
            "psql -v ON_ERROR_STOP=1 -f FILE, as the owner of Holdfast's tables".to_owned()
        }
    };
    output::line(format_args!("-- {why}\n-- One transaction, all or nothing: {how}\n\n{}", sql.trim_end()));
    Ok(())
}
