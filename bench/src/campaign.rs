//! The links that are measured: a formula that all competitors and the load generator share.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use clap::ValueEnum;

/// The path in front of every token.
pub(crate) const PREFIX: &str = "/c/";
/// The site's namespace.
pub(crate) const NAMESPACE: &str = "bench";

/// What the links point to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Targets {
    /// Every link has a URL of its own, of 88 bytes
    Distinct,
    /// All links share forty URLs, as one campaign's do
    Repeating,
}

impl Targets {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Distinct => "distinct",
            Self::Repeating => "repeating",
        }
    }
}

/// A number of links by formula: link `i` has the same token and target in every run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Campaign {
    pub(crate) links: u64,
    pub(crate) targets: Targets,
}

impl Campaign {
    /// Sixteen hexadecimal digits. `wrk.lua` has the same formula; both stay below 2^53, the range in
    /// which its numbers are exact, for up to 2^32 links.
    pub(crate) fn token(i: u64) -> String {
        // An odd factor permutes the residues, so the first half alone is never the same twice.
        format!("{:08x}{:08x}", (i * 40_503) % (1 << 32), (i * 7_919 + 12_345) % (1 << 32))
    }

    pub(crate) fn target(&self, i: u64) -> String {
        let page = match self.targets {
            Targets::Distinct => i,
            Targets::Repeating => i % 40,
        };
        format!("https://www.example.com/spring/offers/{page:09}?utm_source=mail&utm_campaign=spring-sale")
    }

    /// The request path of link `i`.
    pub(crate) fn path(i: u64) -> String {
        format!("{PREFIX}{}", Self::token(i))
    }

    /// Writes the links as `holdfast links import` reads them.
    pub(crate) fn write_csv(&self, file: &Path) -> io::Result<()> {
        let mut out = BufWriter::new(File::create(file)?);
        writeln!(out, "namespace,token,url,campaign,append,expires_at,disabled")?;
        for i in 0..self.links {
            writeln!(out, "{NAMESPACE},{},{},spring-sale,,,", Self::token(i), self.target(i))?;
        }
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn tokens_are_never_the_same_twice() {
        let tokens: HashSet<String> = (0..200_000).map(Campaign::token).collect();
        assert_eq!(tokens.len(), 200_000);
        assert!(tokens.iter().all(|token| token.len() == 16));
    }

    #[test]
    fn targets_are_as_long_as_the_bars_of_the_design_say() {
        for targets in [Targets::Distinct, Targets::Repeating] {
            let campaign = Campaign { links: 1, targets };
            assert_eq!(campaign.target(999).len(), 88);
        }
    }
}
