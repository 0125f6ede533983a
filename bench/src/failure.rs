//! Why a run ended without a result.

use std::fmt::Display;
use std::{error, fmt, io};

/// What could not be done, and the system's reason when there is one.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    cause: Option<io::Error>,
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn new(what: impl Display) -> Self {
        Self { what: what.to_string(), cause: None }
    }

    /// For `map_err`: the error becomes the cause.
    pub(crate) fn at(what: impl Display) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self { what: what.to_string(), cause: Some(cause) }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl error::Error for Failure {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}
