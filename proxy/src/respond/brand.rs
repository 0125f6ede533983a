//! What the configuration says about the look of a site's pages.

use super::colour::Colour;
use super::inline;
use super::language::Language;
use jiff::tz::TimeZone;
use std::fmt;

/// A site's name, look, language and local time.
#[derive(Clone, Debug)]
pub struct Brand {
    /// The name that readers know.
    pub name: String,
    /// The colour of the bar, the button and the time; made readable where it is not.
    pub colour: Colour,
    /// Shown instead of the name.
    pub logo: Option<Logo>,
    /// For readers who ask for none of the languages that there are.
    pub language: Language,
    /// The zone of times on pages, for browsers that run no script.
    pub time_zone: TimeZone,
}

/// A picture that stands inside the page; scripts and outside resources in it are dead there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logo {
    uri: String,
}

/// Why a file is no logo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogoFault {
    /// Larger than [`Logo::BYTES_MAX`].
    TooLong {
        /// The file's length.
        bytes: usize,
    },
    /// Neither SVG nor PNG.
    Unknown,
}

impl fmt::Display for LogoFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes } => {
                write!(f, "logo has {bytes} bytes, at most {} are allowed", Logo::BYTES_MAX)
            }
            Self::Unknown => f.write_str("logo is neither SVG nor PNG"),
        }
    }
}

impl std::error::Error for LogoFault {}

impl Logo {
    /// The longest file: every page carries it.
    pub const BYTES_MAX: usize = 32 * 1024;

    /// Takes the content of an SVG or PNG file; told apart by content, not by name.
    ///
    /// # Errors
    /// [`LogoFault`] says why the content is no logo.
    pub fn new(content: &[u8]) -> Result<Self, LogoFault> {
        if content.len() > Self::BYTES_MAX {
            return Err(LogoFault::TooLong { bytes: content.len() });
        }
        let media_type = if content.starts_with(b"\x89PNG\r\n\x1a\n") {
            "image/png"
        } else if std::str::from_utf8(content).is_ok_and(|text| text.contains("<svg")) {
            "image/svg+xml"
        } else {
            return Err(LogoFault::Unknown);
        };
        Ok(Self { uri: inline::data_uri(media_type, content) })
    }

    pub(super) fn uri(&self) -> &str {
        &self.uri
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_logos_by_their_content() {
        let svg = br#"<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>"#;
        assert!(Logo::new(svg).unwrap().uri().starts_with("data:image/svg+xml;base64,"));
        let png = b"\x89PNG\r\n\x1a\n...";
        assert!(Logo::new(png).unwrap().uri().starts_with("data:image/png;base64,"));
        for content in [&b""[..], b"GIF89a", b"\xff<svg>", b"<html>"] {
            assert_eq!(Logo::new(content), Err(LogoFault::Unknown));
        }
        let bytes = Logo::BYTES_MAX + 1;
        assert_eq!(Logo::new(&vec![b' '; bytes]), Err(LogoFault::TooLong { bytes }));
    }
}
