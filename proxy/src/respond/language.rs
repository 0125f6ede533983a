//! The languages of the built-in pages, and which of them a reader asked for.

#![deny(clippy::indexing_slicing)]

use http::HeaderMap;
use http::header::ACCEPT_LANGUAGE;
use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

/// A language that every page exists in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Language {
    /// English.
    #[default]
    En,
    /// German.
    De,
    /// French.
    Fr,
    /// Spanish.
    Es,
}

/// A text that names none of the languages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanguageFault;

impl fmt::Display for LanguageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("language is none of en, de, fr, es")
    }
}

impl std::error::Error for LanguageFault {}

impl FromStr for Language {
    type Err = LanguageFault;

    fn from_str(code: &str) -> Result<Self, LanguageFault> {
        Self::ALL.into_iter().find(|language| language.code() == code).ok_or(LanguageFault)
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Language {
    /// Every language.
    pub const ALL: [Self; 4] = [Self::En, Self::De, Self::Fr, Self::Es];

    /// The language's code as in `lang="de"`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::De => "de",
            Self::Fr => "fr",
            Self::Es => "es",
        }
    }

    /// The language that `Accept-Language` prefers among ours, else `default`.
    ///
    /// A region counts for its language (`de-AT` asks for German); the first named wins a tie; `*`
    /// stands for `default`, if that is not named itself, else for any other. Ranges that break the
    /// grammar are passed over. A reader who refuses everything gets `default` rather than nothing.
    #[must_use]
    pub fn wanted(fields: &HeaderMap, default: Self) -> Self {
        let mut named = [None; Self::ALL.len()];
        let mut others = 0;
        let lines = fields.get_all(ACCEPT_LANGUAGE).into_iter();
        let ranges = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
        for (place, range) in ranges.enumerate() {
            let Some((tag, quality)) = tag_and_quality(range) else { continue };
            if tag == b"*" {
                others = quality;
                continue;
            }
            let primary = tag.split(|&byte| byte == b'-').next().unwrap_or(tag);
            for (language, wish) in Self::ALL.iter().zip(&mut named) {
                if primary.eq_ignore_ascii_case(language.code().as_bytes()) {
                    // `None` is below every wish, so the best and earliest of a language remains.
                    *wish = (*wish).max(Some((quality, Reverse(place))));
                }
            }
        }
        let wish = |language: Self| {
            let wish = named.get(language as usize).copied().flatten();
            wish.unwrap_or((others, Reverse(usize::MAX)))
        };
        let mut best = default;
        for language in Self::ALL {
            if wish(language).0 > 0 && wish(language) > wish(best) {
                best = language;
            }
        }
        best
    }
}

/// One range of the field: its tag, and its quality in thousandths.
fn tag_and_quality(range: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = range.splitn(2, |&byte| byte == b';').map(<[u8]>::trim_ascii);
    let tag = parts.next()?;
    let quality = parts.next().map_or(Some(1000), thousandths)?;
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'*');
    (!tag.is_empty() && tag.iter().all(fits)).then_some((tag, quality))
}

/// `q=0.85` is 850; anything but the weight of RFC 9110 is `None`.
fn thousandths(weight: &[u8]) -> Option<u16> {
    let [b'q' | b'Q', b'=', whole @ (b'0' | b'1'), fraction @ ..] = weight else { return None };
    let digits = match fraction {
        [] => fraction,
        [b'.', digits @ ..] if digits.len() <= 3 => digits,
        _ => return None,
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = (0..3).fold(u16::from(whole - b'0'), |value, place| {
        value * 10 + digits.get(place).map_or(0, |digit| u16::from(digit - b'0'))
    });
    (value <= 1000).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Language::{De, En, Es, Fr};
    use http::HeaderValue;
    use proptest::prelude::*;

    fn wanted(lines: &[&[u8]], default: Language) -> Language {
        let mut fields = HeaderMap::new();
        for line in lines {
            fields.append(ACCEPT_LANGUAGE, HeaderValue::from_bytes(line).unwrap());
        }
        Language::wanted(&fields, default)
    }

    #[test]
    fn accept_language() {
        for (line, default, expected) in [
            ("", Fr, Fr),
            ("de", En, De),
            ("de-AT", En, De),
            ("DE-at", En, De),
            ("es-419,es;q=0.9", En, Es),
            ("fr-CH, fr;q=0.9, en;q=0.8, de;q=0.7, *;q=0.5", En, Fr),
            ("en;q=0.8, de;q=0.9", Fr, De),
            ("en, de", Fr, En),
            ("de, en", Fr, De),
            ("de;q=0.5, en;q=0.5", Fr, De),
            ("en;q=0.3, de;q=0.3, en;q=0.9", Fr, En),
            ("it, pt;q=0.9", Es, Es),
            ("it, de;q=0.1", Es, De),
            ("*", De, De),
            ("it, *;q=0.5", De, De),
            ("en;q=0.3, *;q=0.5", De, De),
            ("en;q=0.3, *;q=0.5", En, De),
            ("en;q=0.5, *;q=0.5", De, En),
            ("de;q=0", De, De),
            ("de;q=0", En, En),
            ("de;q=0, *", De, En),
            ("de;q=0, fr;q=0.2", De, Fr),
            ("de ; q=0.4 , fr ;q=0.5", En, Fr),
            ("de;Q=1.000", En, De),
            ("de;q=0.001", En, De),
            // What breaks the grammar is passed over, the rest still counts.
            ("de;q=1.001, fr", En, Fr),
            ("de;q=2, fr", En, Fr),
            ("de;q=.5, fr;q=0.1", En, Fr),
            ("de;q=0.1234, fr;q=0.1", En, Fr),
            ("de;q=-1, fr;q=0.1", En, Fr),
            ("de;q=, fr;q=0.1", En, Fr),
            ("de;level=1, fr;q=0.1", En, Fr),
            ("d e, fr;q=0.1", En, Fr),
            (",,;,fr", En, Fr),
            ("deutsch", En, En),
            ("<script>alert(1)</script>", Es, Es),
        ] {
            assert_eq!(wanted(&[line.as_bytes()], default), expected, "{line:?}");
        }
    }

    #[test]
    fn no_field_and_many_fields() {
        assert_eq!(wanted(&[], Es), Es);
        assert_eq!(wanted(&[b"it;q=1, en;q=0.1", b"de;q=0.7"], Es), De);
        assert_eq!(wanted(&[b"\xff\xfe, fr"], En), Fr);
    }

    #[test]
    fn codes_lead_back() {
        for (at, language) in Language::ALL.into_iter().enumerate() {
            assert_eq!(language as usize, at);
            assert_eq!(language.code().parse(), Ok(language));
        }
        assert_eq!("EN".parse::<Language>(), Err(LanguageFault));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(line in proptest::collection::vec(0x20u8..0x7f, 0..80)) {
            wanted(&[&line], En);
        }
    }
}
