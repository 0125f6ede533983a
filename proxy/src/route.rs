//! Host and path bytes become a site's route, its token and its captures: pure, linear, without allocation.
//!
//! ```text
//!  Host ──▶ Host::parse ──▶ HostMap::find ──▶ Routes::find ──▶ Matched { route, token, captures }
//! ```
//!
//! Invariants:
//! - A path is matched byte for byte as it came: no decoding, no normalising, no case folding.
//! - Finding a route takes time linear in the path; no pattern can make it take longer.
//! - The first route whose pattern matches the whole path is the answer; there is no second guess.
//! - Any bytes lead to a route or to none, never to a panic.
//!
//! It knows neither links nor methods nor queries, and it never looks at what a capture means.

#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

mod append;
mod host;
mod manner;
mod pattern;
pub mod presets;
mod token;

pub use append::{Append, AppendFault};
pub use host::{Host, HostFault, HostMap, HostPattern, HostPatternFault};
pub use manner::{Image, Manner, Redirect, Unknown};
pub use pattern::{CAPTURES_MAX, Flaw, Pattern, PatternFault, Values};
pub use token::TokenFault;

use std::fmt;

use crate::event::Kind;
use token::Token;

/// The routes of one site, in the order in which they are tried.
#[derive(Clone, Debug, Default)]
pub struct Routes(Box<[Route]>);

impl Routes {
    /// Routes in the order in which they are to be tried.
    #[must_use]
    pub fn new(routes: Vec<Route>) -> Self {
        Self(routes.into_boxed_slice())
    }

    /// The first route that `path` (without its query) belongs to.
    ///
    /// `scratch` is overwritten only when the token is not one piece of the path; a caller that
    /// keeps it from request to request saves the allocation even then.
    #[must_use]
    pub fn find<'r, 'p>(&'r self, path: &'p [u8], scratch: &'p mut Vec<u8>) -> Option<Matched<'r, 'p>> {
        let (index, route, values) = self
            .0
            .iter()
            .enumerate()
            .find_map(|(index, route)| Some((index, route, route.pattern.matches(path)?)))?;
        let token = route.token.of(&values, scratch);
        Some(Matched { index, route, token, values })
    }

    /// The routes, first tried first.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.iter()
    }

    /// Every route that can never be the answer because one earlier route takes all of its paths.
    ///
    /// What is listed is certain; a route that only several earlier ones cover together is not found.
    #[must_use]
    pub fn shadowed(&self) -> Vec<Shadowed> {
        let earlier = |index: usize, route: &Route| {
            self.0.iter().take(index).position(|first| first.pattern.covers(&route.pattern))
        };
        let routes = self.0.iter().enumerate();
        routes.filter_map(|(index, route)| Some(Shadowed { index, by: earlier(index, route)? })).collect()
    }
}

/// A route that can never be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shadowed {
    /// Its place among the routes.
    pub index: usize,
    /// The place of the earlier route that takes all its paths.
    pub by: usize,
}

/// What a path turned out to be.
#[derive(Clone, Copy, Debug)]
pub struct Matched<'r, 'p> {
    /// The route's place among the site's routes.
    pub index: usize,
    /// The route.
    pub route: &'r Route,
    /// The token's bytes as they came.
    pub token: &'p [u8],
    /// The values of the captures, in the order of the pattern.
    pub values: Values<'p>,
}

impl<'r, 'p> Matched<'r, 'p> {
    /// The captures with their names, in the order of the pattern.
    pub fn captures(&self) -> impl Iterator<Item = (&'r str, &'p [u8])> + use<'r, 'p> {
        self.route.pattern.names().zip(self.values.iter())
    }
}

/// A path pattern of a site, with what it means.
#[derive(Clone, Debug)]
pub struct Route {
    kind: Kind,
    pattern: Pattern,
    token: Token,
    append: Append,
    manner: Manner,
}

impl Route {
    /// Checks a route as somebody wrote it.
    ///
    /// # Errors
    /// Every fault at once; while the path is at fault, what depends on it is not judged.
    pub fn new(raw: &RawRoute) -> Result<Self, Vec<RouteFault>> {
        let pattern = Pattern::parse(&raw.path).map_err(|fault| vec![RouteFault::Path(fault)])?;
        let token = Token::new(&raw.token, &pattern).map_err(RouteFault::Token);
        let append = Append::parse(&raw.append, &pattern).map_err(RouteFault::Append);
        match (token, append) {
            (Ok(token), Ok(append)) => {
                Ok(Self { kind: raw.kind, pattern, token, append, manner: raw.manner })
            }
            (token, append) => Err(token.err().into_iter().chain(append.err()).collect()),
        }
    }

    /// What the route is for.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The paths that belong to it.
    #[must_use]
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// The query parameters that it adds to a target; [`Append::is_empty`] when it adds none.
    #[must_use]
    pub fn append(&self) -> &Append {
        &self.append
    }

    /// How its answers look.
    #[must_use]
    pub fn manner(&self) -> Manner {
        self.manner
    }
}

/// A route as it stands in a configuration or preset, not yet checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRoute {
    /// What the route is for.
    pub kind: Kind,
    /// The pattern, as [`Pattern::parse`] reads it.
    pub path: String,
    /// Names of the captures that make up the token; empty means the one named `token`.
    pub token: Vec<String>,
    /// Query parameters for the target, as [`Append::parse`] reads them; empty for none.
    pub append: String,
    /// How its answers look.
    pub manner: Manner,
}

/// What is wrong with a route, by the key that has to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteFault {
    /// `append` is no list of query parameters.
    Append(AppendFault),
    /// `path` is no pattern.
    Path(PatternFault),
    /// `token` does not name captures of the path.
    Token(TokenFault),
}

impl RouteFault {
    /// The key in a `[[site.route]]` table.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Append(_) => "append",
            Self::Path(_) => "path",
            Self::Token(_) => "token",
        }
    }
}

impl fmt::Display for RouteFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Append(fault) => fault.fmt(f),
            Self::Path(fault) => fault.fmt(f),
            Self::Token(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for RouteFault {}

#[cfg(test)]
mod tests;
