//! What can be wrong with a certificate file, and what that means for the names in it.

use std::error;
use std::path::PathBuf;
use std::sync::Arc;
use std::{fmt, io};

use crate::UnixSeconds;

/// One fault of one file.
#[derive(Clone, Debug)]
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
        self.problem.source()
    }
}

/// Why a file, or the whole folder, can't be used as it is.
#[derive(Clone, Debug)]
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
    /// No certificate is for the name that is served to clients who ask for none or an unknown one.
    Default {
        /// The name that was configured.
        name: Box<str>,
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
    /// Issued before the certificate that the file held when it was read last: an old copy, most likely.
    Older {
        /// First second of validity of the one that is in the file now.
        from: UnixSeconds,
        /// That of the one that was.
        served_from: UnixSeconds,
    },
    /// A second server's certificate in one file; only the first is looked at.
    Stray,
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
    Unreadable(Arc<io::Error>),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate => f.write_str("the certificate does not parse"),
            Self::Dates { from, until } => {
                write!(f, "the certificate is valid from {} to {} (unix seconds), not now", from.0, until.0)
            }
            Self::Default { name } => {
                write!(f, "no certificate is for {name}, the name for clients that ask for none")
            }
            Self::Emptied => f.write_str("the folder has become empty"),
            Self::Encrypted => f.write_str("the private key is encrypted, which is not supported"),
            Self::Key(_) => f.write_str("the private key can't be used"),
            Self::NoNames => f.write_str("the certificate has no host among its alternative names"),
            Self::NoKey => f.write_str("no key in the folder belongs to this certificate"),
            Self::Nothing => f.write_str("neither a certificate nor a private key is in it"),
            Self::Pem => f.write_str("its PEM is damaged or half written"),
            Self::Older { from, served_from } => write!(
                f,
                "the certificate was issued before the one in use (valid from {} and from {}, unix seconds)",
                from.0, served_from.0
            ),
            Self::Stray => f.write_str("a second server's certificate is in it; give each a file of its own"),
            Self::TooLong { bytes_max } => write!(f, "longer than {bytes_max} bytes"),
            Self::TooMany { files_max } => write!(f, "holds more than {files_max} files"),
            Self::Unreadable(_) => f.write_str("can't be read"),
        }
    }
}

impl error::Error for Problem {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Unreadable(cause) => Some(&**cause),
            Self::Key(cause) => Some(cause),
            _ => None,
        }
    }
}

/// What a fault means for the names concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// Clients that ask for no name, or for an unknown one, are refused.
    DefaultRefused,
    /// The pair that was served before goes on being served.
    EarlierKept,
    /// Nothing is served from this file.
    NotServed,
    /// It is served as it is, for a wrong clock must not take a name down.
    Served,
}

impl Problem {
    pub(crate) fn unreadable(error: io::Error) -> Self {
        Self::Unreadable(Arc::new(error))
    }
}

impl Consequence {
    pub(crate) fn of_failure(earlier: bool) -> Self {
        if earlier { Self::EarlierKept } else { Self::NotServed }
    }
}

impl fmt::Display for Consequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DefaultRefused => "clients without a known name are refused",
            Self::EarlierKept => "what was served before stays",
            Self::NotServed => "it is not served",
            Self::Served => "it is served all the same",
        })
    }
}
