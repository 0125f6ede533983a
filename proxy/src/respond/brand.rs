//! What the configuration says about the look of a site's pages.

use super::colour::Colour;
use super::inline;
use super::language::Language;
use jiff::tz::TimeZone;
use serde::Deserialize;
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

/// What a customer's look has of its own; everything else is its site's.
///
/// The logo is the text of an SVG image, for pages load nothing from elsewhere.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overrides {
    name: Option<String>,
    colour: Option<String>,
    logo: Option<String>,
    language: Option<String>,
    time_zone: Option<String>,
}

impl Overrides {
    /// The longest name in characters, as of a site's.
    const NAME_CHARS_MAX: usize = 64;

    /// `site` with the differences that `json` gives: an object with `name`, `colour`, `logo`, `language` and
    /// `time_zone`, each of which may be missing; an empty text gives none.
    ///
    /// # Errors
    /// What is wrong and what is allowed, in words for people.
    pub fn dress(site: &Brand, json: &str) -> Result<Brand, String> {
        let own: Self = match json {
            "" => Self::default(),
            json => serde_json::from_str(json).map_err(|error| error.to_string())?,
        };
        let mut brand = site.clone();
        if let Some(name) = own.name {
            let is_line = (1..=Self::NAME_CHARS_MAX).contains(&name.chars().count());
            if !is_line || name.contains(char::is_control) {
                return Err(format!("name is not one line of 1 to {} characters", Self::NAME_CHARS_MAX));
            }
            brand.name = name;
            // Nobody's name stands under another's logo.
            brand.logo = None;
        }
        if let Some(colour) = own.colour {
            brand.colour = colour.parse().map_err(|fault: super::colour::ColourFault| fault.to_string())?;
        }
        if let Some(logo) = own.logo {
            brand.logo = match logo.as_str() {
                "" => None,
                svg => Some(Logo::new(svg.as_bytes()).map_err(|fault| fault.to_string())?),
            };
        }
        if let Some(language) = own.language {
            brand.language =
                language.parse().map_err(|fault: super::language::LanguageFault| fault.to_string())?;
        }
        if let Some(zone) = own.time_zone {
            brand.time_zone =
                TimeZone::get(&zone).map_err(|_| format!("time_zone {zone:?} is no IANA name"))?;
        }
        Ok(brand)
    }
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
    fn a_customers_look_differs_where_it_says_so() {
        let site = Brand {
            name: "Shop".to_owned(),
            colour: Colour { red: 1, green: 2, blue: 3 },
            logo: None,
            language: Language::De,
            time_zone: TimeZone::UTC,
        };
        let own =
            r##"{"name":"Blume","colour":"#ff8800","language":"fr","logo":"<svg/>","time_zone":"UTC"}"##;
        let brand = Overrides::dress(&site, own).unwrap();
        assert_eq!(
            (brand.name.as_str(), brand.colour.to_string(), brand.language),
            ("Blume", "#ff8800".to_owned(), Language::Fr)
        );
        assert!(brand.logo.is_some());
        let same = Overrides::dress(&site, "").unwrap();
        assert_eq!((same.name.as_str(), same.colour, same.language), ("Shop", site.colour, Language::De));
        for bad in [
            "x",
            "[]",
            r#"{"color":"red"}"#,
            r#"{"colour":"red"}"#,
            r#"{"name":""}"#,
            r#"{"logo":"x"}"#,
            r#"{"language":"xx"}"#,
            r#"{"time_zone":"Mars/Base"}"#,
        ] {
            assert!(Overrides::dress(&site, bad).is_err(), "{bad}");
        }
    }

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
