//! How a route answers where systems differ: which redirect, which image, which status for a stranger.

/// The manner of one route's answers; a route without a word about it has the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// The answer to a known link.
    pub redirect: Redirect,
    /// The answer to a link that nobody knows.
    pub unknown: Unknown,
    /// The tracking pixel.
    pub image: Image,
}

/// A redirect that no browser may keep for good: 301 and 308 are not among them (RFC 9110 §15.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Redirect {
    /// 302.
    #[default]
    Found,
    /// 303.
    SeeOther,
    /// 307.
    Temporary,
}

impl Redirect {
    /// Every value.
    pub const ALL: &'static [Self] = &[Self::Found, Self::SeeOther, Self::Temporary];

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Found => 302,
            Self::SeeOther => 303,
            Self::Temporary => 307,
        }
    }
}

/// The status of the page for a link that nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// 404.
    #[default]
    NotFound,
    /// 400.
    BadRequest,
}

impl Unknown {
    /// Every value.
    pub const ALL: &'static [Self] = &[Self::NotFound, Self::BadRequest];

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::BadRequest => 400,
        }
    }
}

/// The format of the tracking pixel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Image {
    /// GIF.
    #[default]
    Gif,
    /// PNG.
    Png,
}

impl Image {
    /// Every value.
    pub const ALL: &'static [Self] = &[Self::Gif, Self::Png];

    /// Its name in configurations.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Gif => "gif",
            Self::Png => "png",
        }
    }
}
