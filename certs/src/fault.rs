//! What can be wrong with a certificate file, and what that means for the names in it.

use std::path::PathBuf;
use std::{error, fmt, io};

use crate::UnixSeconds;

/// One fault of one file.
#[derive(Debug)]
pub struct Fault {
    /// The file, or the folder when that is at fault.
    pub file: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
    /// What is served all the same.
    pub consequence: Consequence,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.file.display(), self.problem, self.consequence)
    }
}

impl error::Error for Fault {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.problem {
            Problem::Unreadable(cause) => Some(cause),
            Problem::Key(cause) => Some(cause),
            _ => None,
        }
    }
}

/// Why a file, or the whole folder, can't be used as it is.
#[derive(Debug)]
pub enum Problem {
    /// A certificate that does not parse.
    Certificate,
    /// The dates do not cover now.
    Dates {
        /// First second of validity.
        from: UnixSeconds,
        /// Last second of validity.
        until: UnixSeconds,
    },
    /// All files of a folder that had some are gone.
    Emptied,
    /// The key is encrypted; there is nobody to ask for its passphrase.
    Encrypted,
    /// The private key is of no supported type, or damaged.
    Key(rustls::Error),
    /// The certificate names no host as subject alternative name.
    NoNames,
    /// No key in the folder belongs to the certificate.
    NoKey,
    /// Neither a certificate nor a key is in the file.
    Nothing,
    /// The file's PEM is damaged, perhaps half written.
    Pem,
    /// Longer than any certificate file has reason to be.
    TooLong {
        /// The most bytes that are read of one file.
        bytes_max: u64,
    },
    /// More files than are read of one folder.
    TooMany {
        /// The most files that are read.
        files_max: usize,
    },
    /// The file or folder can't be read.
    Unreadable(io::Error),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate => f.write_str("the certificate does not parse"),
            Self::Dates { from, until } => {
                write!(f, "the certificate is valid from {} to {} (unix seconds), not now", from.0, until.0)
            }
            Self::Emptied => f.write_str("the folder has become empty"),
            Self::Encrypted => f.write_str("the private key is encrypted, which is not supported"),
            Self::Key(_) => f.write_str("the private key can't be used"),
            Self::NoNames => f.write_str("the certificate has no host among its alternative names"),
            Self::NoKey => f.write_str("no key in the folder belongs to this certificate"),
            Self::Nothing => f.write_str("neither a certificate nor a private key is in it"),
            Self::Pem => f.write_str("its PEM is damaged or half written"),
            Self::TooLong { bytes_max } => write!(f, "longer than {bytes_max} bytes"),
            Self::TooMany { files_max } => write!(f, "holds more than {files_max} files"),
            Self::Unreadable(_) => f.write_str("can't be read"),
        }
    }
}

/// What a fault means for the names concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// The pair that was served before goes on being served.
    EarlierKept,
    /// Nothing is served from this file.
    NotServed,
    /// It is served as it is, for a wrong clock must not take a name down.
    Served,
}

impl Consequence {
    pub(crate) fn of_failure(earlier: bool) -> Self {
        if earlier { Self::EarlierKept } else { Self::NotServed }
    }
}

impl fmt::Display for Consequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EarlierKept => "what was served before stays",
            Self::NotServed => "it is not served",
            Self::Served => "it is served all the same",
        })
    }
}
