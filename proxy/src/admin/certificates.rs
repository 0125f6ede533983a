//! What is said of certificates: on the status screen, on the metrics' page, in a list of them all.

use std::sync::{Mutex, PoisonError};

use certs::Report;
use serde::{Deserialize, Serialize};

use crate::metrics::Page;

/// What the certificates' owner found last.
#[derive(Debug, Default)]
pub struct Board {
    // Taken by the control thread after each reading and by readers; held for a copy.
    report: Mutex<Option<Report>>,
}

impl Board {
    /// Shows what was found.
    pub fn publish(&self, report: Report) {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
    }

    fn report(&self) -> Option<Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn summary(&self) -> Summary {
        self.report().map_or_else(Summary::default, |report| Summary {
            certificates: report.certificates as u64,
            names: report.names as u64,
            ends_first_s: report.ends_first.map(|end| end.0),
            faults: report.faults.len() as u64,
        })
    }

    pub(super) fn listing(&self) -> Listing {
        let Some(report) = self.report() else { return Listing::default() };
        let certificates = report.listing.iter().map(|certificate| Listed {
            names: certificate.names().map(str::to_owned).collect(),
            key: certificate.key_type().label().to_owned(),
            from_s: certificate.from().0,
            until_s: certificate.until().0,
            file: certificate.file().display().to_string(),
        });
        let faults = report.faults.iter().map(|fault| Flaw {
            file: fault.file.display().to_string(),
            problem: crate::causes::chain(&fault.problem),
            consequence: fault.consequence.to_string(),
        });
        Listing { certificates: certificates.collect(), faults: faults.collect() }
    }

    pub(super) fn write(&self, page: &Page) {
        let summary = self.summary();
        page.gauge("certificates", &[], summary.certificates as f64);
        page.gauge("certificate_faults", &[], summary.faults as f64);
        let end = summary.ends_first_s.unwrap_or(0);
        page.gauge("certificate_end_timestamp_seconds", &[], end as f64);
    }
}

/// The certificates in one line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// How many are served.
    pub certificates: u64,
    /// For how many names; a wildcard is one.
    pub names: u64,
    /// When the one that ends first ends, Unix seconds.
    pub ends_first_s: Option<i64>,
    /// Faults of files.
    pub faults: u64,
}

/// The answer of `/certificates`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Listing {
    /// What is served, in the order of the files.
    pub certificates: Vec<Listed>,
    /// What is wrong with files.
    pub faults: Vec<Flaw>,
}

/// One certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listed {
    /// Its names; a wildcard with its `*.`.
    pub names: Vec<String>,
    /// What its key signs with.
    pub key: String,
    /// First second of validity, Unix.
    pub from_s: i64,
    /// Last second of validity, Unix.
    pub until_s: i64,
    /// Its file.
    pub file: String,
}

/// What is wrong with one file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Flaw {
    /// The file, or the folder.
    pub file: String,
    /// What is wrong with it.
    pub problem: String,
    /// What is served all the same.
    pub consequence: String,
}
