//! What the peers' folders have in common: a configuration out of `bench/peers/`, and the links as lines.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::campaign::Campaign;

/// Makes the folder; programs take a relative one for one below their own.
pub(crate) fn make_folder(folder: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    folder.canonicalize()
}

/// Writes a line for each link's path and target: `before`, the path, a space, the target, `after`.
pub(crate) fn write_links(file: &Path, campaign: &Campaign, before: &str, after: &str) -> io::Result<()> {
    let mut links = BufWriter::new(File::create(file)?);
    for i in 0..campaign.links {
        writeln!(links, "{before}{} {}{after}", Campaign::path(i), campaign.target(i))?;
    }
    links.flush()
}

/// Puts each word's value where the template has the word between two `@`.
pub(crate) fn fill(template: &str, words: &[(&str, String)]) -> String {
    words.iter().fold(template.to_owned(), |text, (word, value)| text.replace(&format!("@{word}@"), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_filled_in() {
        assert_eq!(
            fill("listen @ADDRESS@; # @ADDRESS@", &[("ADDRESS", "a:1".to_owned())]),
            "listen a:1; # a:1"
        );
    }
}
