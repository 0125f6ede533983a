//! The words everyone uses: time, kinds, classes, outcomes, and the codec of one recorded hit.
//!
//! Invariants:
//! - An encoded event decodes to itself; what does not decode is [`Damaged`], never a panic.
//! - Wire tags (`as u8`) are never renumbered; new variants are added at the end.
//! - Every variable field is capped before it is encoded, so an event never exceeds [`EVENT_BYTES_MAX`].
//!
//! It does not know where an event is kept, nor who reads it.

#![deny(clippy::indexing_slicing)]

use std::fmt;

/// Milliseconds since 1970-01-01T00:00:00Z; the only form in which time of day crosses a module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// This moment plus `span`, saturating at the end of time.
    #[must_use]
    pub fn after(self, span: std::time::Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; zero when it lies in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Whole seconds, rounded down.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }
}

/// Declares a closed set of words with a wire tag and a label for metrics, database and logs.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $tag:literal $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $tag,)+ }

        impl $name {
            /// Every value, in the order of its tags.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word as it stands in metrics, the database and logs.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// The value of a wire tag; `None` for a tag of a later release.
            #[must_use]
            pub const fn from_tag(tag: u8) -> Option<Self> {
                match tag { $($tag => Some(Self::$variant),)+ _ => None }
            }

            /// The value of a label; `None` for any other text.
            #[must_use]
            pub fn from_label(label: &str) -> Option<Self> {
                match label { $($label => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.label())
            }
        }
    };
}

words! {
    /// What a route is for; decides its answer (see `policy`).
    Kind {
        /// A tracked link: answered with a redirect to its target.
        Click = 1 "click",
        /// A tracking pixel: answered with an image, whatever happens.
        Open = 2 "open",
    }
}

words! {
    /// The request methods that Holdfast answers itself; all others get 405.
    Method {
        /// GET.
        Get = 1 "GET",
        /// HEAD: answered like GET without a body, never counted as a click.
        Head = 2 "HEAD",
    }
}

words! {
    /// What became of a recorded hit.
    Outcome {
        /// 302 to the link's target.
        Redirected = 1 "redirected",
        /// The pixel was sent.
        Shown = 2 "shown",
        /// 404: nobody knows this token.
        Unknown = 3 "unknown",
        /// 410: the link's time is over.
        Expired = 4 "expired",
        /// 410: the link was switched off.
        Disabled = 5 "disabled",
        /// 410: the link was deleted.
        Deleted = 6 "deleted",
        /// 503: the token is not known here and the database could not be asked.
        Missed = 7 "missed",
    }
}

words! {
    /// What the answer to a hit promised (design, P2).
    Class {
        /// The record survives a power cut.
        Synced = 1 "synced",
        /// The record survives the death of the process.
        Written = 2 "written",
        /// Answered without waiting for the disk: the record may be lost, and is counted.
        Waived = 3 "waived",
    }
}

words! {
    /// Who seems to have asked; a label, never a reason to drop a hit.
    Verdict {
        /// Nothing speaks against a person.
        Person = 0 "",
        /// A HEAD request: scanners and link expanders.
        Head = 1 "head",
        /// A browser fetched ahead (`Sec-Purpose`, `Purpose`, `X-Moz`).
        Prefetch = 2 "prefetch",
        /// A program that names itself in its user agent.
        Robot = 3 "robot",
    }
}

/// The longest encoded event in bytes; the journal refuses longer payloads.
pub const EVENT_BYTES_MAX: usize = 32 * 1024;
/// The longest token that is recorded whole; longer ones never reach a table.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// Longest recorded query, user agent and referrer; the rest is cut off.
pub const TEXT_BYTES_MAX: usize = 1024;
const URL_BYTES_MAX: usize = 8 * 1024;
const CAPTURES_BYTES_MAX: usize = 8 * 1024;
const VERSION: u8 = 1;

/// One recorded hit, borrowed from the request or from a journal's payload.
///
/// Texts from the outside are bytes as they came; nothing here is escaped or trusted.
/// The time of the hit is the journal record's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The route's kind.
    pub kind: Kind,
    /// The request's method.
    pub method: Method,
    /// What became of the hit.
    pub outcome: Outcome,
    /// The class that the answer was meant to have when the hit was recorded.
    pub class: Class,
    /// Who seems to have asked.
    pub verdict: Verdict,
    /// The answer's HTTP status.
    pub status: u16,
    /// The site's name in the configuration.
    pub site: &'a [u8],
    /// The namespace that the token belongs to.
    pub namespace: &'a [u8],
    /// The request's host, normalised.
    pub host: &'a [u8],
    /// The token's bytes as they came.
    pub token: &'a [u8],
    /// The link's campaign; empty when it has none or is not known.
    pub campaign: &'a [u8],
    /// The captures as [`Captures`] writes them.
    pub captures: &'a [u8],
    /// The request's query without `?`.
    pub query: &'a [u8],
    /// The answer's target, only when the configuration asks for it (`record.url`).
    pub url: &'a [u8],
    /// The client's address after `privacy.address` was applied: 0, 4 or 16 bytes.
    pub address: &'a [u8],
    /// The `User-Agent` field.
    pub user_agent: &'a [u8],
    /// The `Referer` field.
    pub referrer: &'a [u8],
}

/// An encoded event that does not say what it means; the journal's checksums hold, so it was
/// written by another release or by a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damaged {
    /// The bytes end before the event does, or go on after it.
    Length,
    /// A tag has no meaning in this release.
    Tag,
    /// Written by a later release.
    Version(u8),
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => f.write_str("event is shorter or longer than it says"),
            Self::Tag => f.write_str("event has a tag without meaning"),
            Self::Version(v) => write!(f, "event has version {v}, this release reads {VERSION}"),
        }
    }
}

impl std::error::Error for Damaged {}

impl<'a> Event<'a> {
    /// Appends the encoded event to `out`; fields beyond their cap are cut.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let status = self.status.to_le_bytes();
        out.extend_from_slice(&[
            VERSION,
            self.kind as u8,
            self.method as u8,
            self.outcome as u8,
            self.class as u8,
            self.verdict as u8,
            status[0],
            status[1],
        ]);
        for (field, max) in self.fields() {
            put_bytes(out, field, max);
        }
    }

    /// Reads an event that fills `bytes` exactly.
    ///
    /// # Errors
    /// [`Damaged`] says why the bytes are no event of this release.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Damaged> {
        let (head, mut rest) = bytes.split_first_chunk::<8>().ok_or(Damaged::Length)?;
        let [version, kind, method, outcome, class, verdict, status_low, status_high] = *head;
        if version != VERSION {
            return Err(Damaged::Version(version));
        }
        let mut next = || take_bytes(&mut rest).ok_or(Damaged::Length);
        let event = Self {
            kind: Kind::from_tag(kind).ok_or(Damaged::Tag)?,
            method: Method::from_tag(method).ok_or(Damaged::Tag)?,
            outcome: Outcome::from_tag(outcome).ok_or(Damaged::Tag)?,
            class: Class::from_tag(class).ok_or(Damaged::Tag)?,
            verdict: Verdict::from_tag(verdict).ok_or(Damaged::Tag)?,
            status: u16::from_le_bytes([status_low, status_high]),
            site: next()?,
            namespace: next()?,
            host: next()?,
            token: next()?,
            campaign: next()?,
            captures: next()?,
            query: next()?,
            url: next()?,
            address: next()?,
            user_agent: next()?,
            referrer: next()?,
        };
        if rest.is_empty() { Ok(event) } else { Err(Damaged::Length) }
    }

    fn fields(&self) -> [(&'a [u8], usize); 11] {
        [
            (self.site, 256),
            (self.namespace, 256),
            (self.host, 256),
            (self.token, TOKEN_BYTES_MAX),
            (self.campaign, 256),
            (self.captures, CAPTURES_BYTES_MAX),
            (self.query, TEXT_BYTES_MAX),
            (self.url, URL_BYTES_MAX),
            (self.address, 16),
            (self.user_agent, TEXT_BYTES_MAX),
            (self.referrer, TEXT_BYTES_MAX),
        ]
    }
}

/// Named parts of a path, in the order of the pattern: `name`, `value` pairs in one byte string.
#[derive(Clone, Copy, Debug)]
pub struct Captures<'a>(pub &'a [u8]);

impl<'a> Captures<'a> {
    /// Appends one pair to `out`.
    pub fn push(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
        put_bytes(out, name, 64);
        put_bytes(out, value, TOKEN_BYTES_MAX);
    }
}

impl<'a> Iterator for Captures<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let name = take_bytes(&mut self.0)?;
        let value = take_bytes(&mut self.0)?;
        Some((name, value))
    }
}

/// Length as a little-endian base-128 number of at most two bytes, then the bytes.
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8], max: usize) {
    debug_assert!(max < 1 << 14, "two bytes of length hold 14 bits");
    let bytes = bytes.get(..max).unwrap_or(bytes);
    let length = bytes.len();
    if length < 0x80 {
        out.push(length as u8);
    } else {
        out.extend_from_slice(&[(length & 0x7f) as u8 | 0x80, (length >> 7) as u8]);
    }
    out.extend_from_slice(bytes);
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (&low, tail) = rest.split_first()?;
    let (length, tail) = if low < 0x80 {
        (usize::from(low), tail)
    } else {
        let (&high, tail) = tail.split_first()?;
        if high >= 0x80 {
            return None;
        }
        (usize::from(low & 0x7f) | usize::from(high) << 7, tail)
    };
    let (bytes, tail) = tail.split_at_checked(length)?;
    *rest = tail;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Event<'static> {
        Event {
            kind: Kind::Click,
            method: Method::Get,
            outcome: Outcome::Redirected,
            class: Class::Synced,
            verdict: Verdict::Person,
            status: 302,
            site: b"shop",
            namespace: b"acme",
            host: b"click.example.com",
            token: b"UAA-6RZBM-UWW3JN-3ZFU1J",
            campaign: b"spring",
            captures: b"",
            query: b"x=1",
            url: b"",
            address: &[192, 0, 2, 0],
            user_agent: b"Mozilla/5.0",
            referrer: b"",
        }
    }

    #[test]
    fn decodes_what_it_encoded() {
        let mut bytes = Vec::new();
        sample().encode(&mut bytes);
        assert_eq!(Event::decode(&bytes), Ok(sample()));
    }

    #[test]
    fn long_fields_are_cut_and_the_cap_holds() {
        let long = vec![b'a'; 100_000];
        let mut event = sample();
        for field in [
            &mut event.site,
            &mut event.namespace,
            &mut event.host,
            &mut event.token,
            &mut event.campaign,
            &mut event.captures,
            &mut event.query,
            &mut event.url,
            &mut event.address,
            &mut event.user_agent,
            &mut event.referrer,
        ] {
            *field = &long;
        }
        let mut bytes = Vec::new();
        event.encode(&mut bytes);
        assert!(bytes.len() <= EVENT_BYTES_MAX, "{} bytes", bytes.len());
        assert_eq!(Event::decode(&bytes).map(|e| e.token.len()), Ok(TOKEN_BYTES_MAX));
    }

    #[test]
    fn captures_come_back_in_order() {
        let mut bytes = Vec::new();
        Captures::push(&mut bytes, b"account", b"UAA");
        Captures::push(&mut bytes, b"n", &[0xff, 0]);
        let pairs: Vec<_> = Captures(&bytes).collect();
        assert_eq!(pairs, [(&b"account"[..], &b"UAA"[..]), (b"n", &[0xff, 0])]);
    }

    #[test]
    fn labels_and_tags_lead_back() {
        for &outcome in Outcome::ALL {
            assert_eq!(Outcome::from_tag(outcome as u8), Some(outcome));
            assert_eq!(Outcome::from_label(outcome.label()), Some(outcome));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(event) = Event::decode(&bytes) {
                let mut again = Vec::new();
                event.encode(&mut again);
                prop_assert_eq!(Event::decode(&again), Ok(event));
            }
        }
    }
}
