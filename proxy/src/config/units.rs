//! Durations, sizes, shares and moments as people write them, and back.

use std::time::Duration;

use crate::event::UnixMillis;

use super::nearest::nearest;

/// A part of a whole, exact to a ten-thousandth of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    parts_per_million: u32,
}

impl Share {
    /// That many millionths of the whole; more than the whole is the whole.
    #[must_use]
    pub fn from_parts_per_million(parts_per_million: u32) -> Self {
        Self { parts_per_million: parts_per_million.min(1_000_000) }
    }

    /// Millionths of the whole, from 0 to 1,000,000.
    #[must_use]
    pub fn parts_per_million(self) -> u32 {
        self.parts_per_million
    }

    /// This share of `whole`, rounded down.
    #[must_use]
    pub fn of(self, whole: u64) -> u64 {
        // Cannot exceed `whole`, because the share never exceeds a million millionths.
        (u128::from(whole) * u128::from(self.parts_per_million) / 1_000_000) as u64
    }

    /// This share as a fraction from 0 to 1.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.parts_per_million) / 1e6
    }
}

const SPANS: [(&str, u64); 6] = [
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
];

/// Reads `4h`, `50ms`, `1h30m`; units are us, ms, s, m, h, d.
#[must_use]
pub fn parse_span(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total_us = 0_u64;
    loop {
        let (count, unit, tail) = quantity(rest)?;
        total_us = total_us.checked_add(count.checked_mul(scale(&SPANS, unit)?)?)?;
        if tail.is_empty() {
            return Some(Duration::from_micros(total_us));
        }
        rest = tail;
    }
}

/// Writes a duration in the largest unit that keeps it exact.
pub(super) fn show_span(span: Duration) -> String {
    let us = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    if us == 0 {
        return "0s".to_owned();
    }
    let (unit, scale) = largest(&SPANS, us);
    format!("{}{unit}", us / scale)
}

/// Reads `64MiB`, `10GB`, `512B`.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let (count, unit, rest) = quantity(text)?;
    if !rest.is_empty() {
        return None;
    }
    count.checked_mul(scale(&SIZES, unit)?)
}

/// Writes a size in the largest unit that keeps it exact.
pub(super) fn show_size(bytes: u64) -> String {
    if bytes == 0 {
        return "0B".to_owned();
    }
    let (unit, scale) = largest(&SIZES, bytes);
    format!("{}{unit}", bytes / scale)
}

/// Reads `1%`, `0.5%`, up to four decimal places.
pub(super) fn parse_share(text: &str) -> Option<Share> {
    let number = text.strip_suffix('%')?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || whole.len() > 3 || decimals.len() > 4 {
        return None;
    }
    let parts = format!("{whole}{decimals:0<4}").parse::<u32>().ok()?;
    (parts <= 1_000_000).then(|| Share::from_parts_per_million(parts))
}

/// Writes a share as a percentage.
pub(super) fn show_share(share: Share) -> String {
    let parts = share.parts_per_million();
    let text = format!("{}.{:04}", parts / 10_000, parts % 10_000);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Reads `2012-07-14T11:00[Europe/London]`.
///
/// A local time that occurs twice is the earlier one, one that is skipped moves ahead by the gap
/// (RFC 5545, jiff's "compatible" rule); an offset, `…T01:30+00:00[Europe/London]`, says which is meant.
///
/// # Errors
/// What is wrong with the text, as the end of a sentence that begins with the text.
pub fn parse_moment(text: &str) -> Result<UnixMillis, String> {
    let Some((_, zone)) = text.split_once('[') else {
        return Err("which names no time zone".to_owned());
    };
    let zone = zone.split(']').next().unwrap_or(zone).trim_start_matches('!');
    // A name that is not a zone at all would otherwise be reported as a fault of the whole text.
    if !zone.starts_with(['+', '-']) {
        parse_zone(zone).map_err(|advice| format!("whose time zone is not known{advice}"))?;
    }
    let moment: jiff::Zoned = text.parse().map_err(|error: jiff::Error| match error.to_string() {
        reason if reason.contains("could not resolve") => {
            "whose offset is not one of its zone then".to_owned()
        }
        _ => "which is no such time".to_owned(),
    })?;
    let unix_ms = u64::try_from(moment.timestamp().as_millisecond());
    unix_ms.map(UnixMillis).map_err(|_| "which lies before 1970".to_owned())
}

/// Finds a time zone by its IANA name.
///
/// # Errors
/// A suggestion in parentheses, beginning with a space, or nothing where there is none to make.
pub(super) fn parse_zone(name: &str) -> Result<jiff::tz::TimeZone, String> {
    jiff::tz::TimeZone::get(name).map_err(|_| {
        let known: Vec<String> = jiff::tz::db().available().map(|zone| zone.to_string()).collect();
        if known.len() < 2 {
            return " (this machine has no time zone database; install the package tzdata)".to_owned();
        }
        let by_city =
            |zone: &&String| zone.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(name));
        let meant = nearest(name, known.iter().map(String::as_str))
            .or_else(|| known.iter().find(by_city).map(String::as_str));
        meant.map_or_else(String::new, |zone| format!(" (did you mean {zone}?)"))
    })
}

/// Splits `90s…` into 90, `s` and the rest.
fn quantity(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, rest) = text.split_at(digits);
    let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (unit, rest) = rest.split_at(letters);
    Some((count.parse().ok()?, unit, rest))
}

fn scale(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    units.iter().find(|&&(name, _)| name == unit).map(|&(_, scale)| scale)
}

/// The largest unit that divides `amount`; of two that do, the one with the smaller count.
fn largest(units: &[(&'static str, u64)], amount: u64) -> (&'static str, u64) {
    let exact = units.iter().filter(|&&(_, scale)| amount.is_multiple_of(scale));
    *exact.max_by_key(|&&(_, scale)| scale).expect("the first unit divides every amount")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans() {
        let ms = |ms| Some(Duration::from_millis(ms));
        for (text, span) in [
            ("50ms", ms(50)),
            ("4h", ms(14_400_000)),
            ("1h30m", ms(5_400_000)),
            ("7d", ms(604_800_000)),
            ("500us", Some(Duration::from_micros(500))),
            ("0s", ms(0)),
            ("", None),
            ("5", None),
            ("s", None),
            ("-5s", None),
            ("1.5h", None),
            ("5 s", None),
            ("5S", None),
            ("5weeks", None),
            ("99999999999999999999s", None),
            ("999999999999d", None),
        ] {
            assert_eq!(parse_span(text), span, "{text}");
        }
        assert_eq!(show_span(Duration::from_secs(5400)), "90m");
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("64MiB", Some(64 << 20)),
            ("10GB", Some(10_000_000_000)),
            ("512B", Some(512)),
            ("64", None),
            ("64mib", None),
            ("64M", None),
            ("1MiB1KiB", None),
            ("", None),
            ("999999999TiB", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }

    #[test]
    fn shares() {
        for (text, parts) in [
            ("1%", Some(10_000)),
            ("0.5%", Some(5_000)),
            ("0.0001%", Some(1)),
            ("100%", Some(1_000_000)),
            ("100.0001%", None),
            ("0.00001%", None),
            ("1", None),
            ("%", None),
            (".5%", None),
            ("-1%", None),
            ("1e1%", None),
        ] {
            assert_eq!(parse_share(text).map(Share::parts_per_million), parts, "{text}");
        }
        assert_eq!(Share::from_parts_per_million(10_000).of(u64::MAX), u64::MAX / 100);
        assert_eq!(show_share(Share::from_parts_per_million(5_000)), "0.5%");
    }

    #[test]
    fn moments_follow_their_zone() {
        for (text, unix_ms) in [
            ("2012-07-14T11:00[Europe/London]", Ok(1_342_260_000_000)),
            ("2012-07-14 11:00:00[Europe/London]", Ok(1_342_260_000_000)),
            ("2012-07-14T11:00[UTC]", Ok(1_342_263_600_000)),
            // 01:30 occurred twice that night: the earlier one, unless the offset says otherwise.
            ("2012-10-28T01:30[Europe/London]", Ok(1_351_384_200_000)),
            ("2012-10-28T01:30+00:00[Europe/London]", Ok(1_351_387_800_000)),
            // 01:30 was skipped that night: half an hour after the clocks went ahead.
            ("2012-03-25T01:30[Europe/London]", Ok(1_332_639_000_000)),
            ("2012-07-14T11:00+05:00[Europe/London]", Err("whose offset is not one of its zone then")),
            ("2012-07-14T11:00", Err("which names no time zone")),
            (
                "2012-07-14T11:00[Europe/Lndon]",
                Err("whose time zone is not known (did you mean Europe/London?)"),
            ),
            ("2012-07-14T11:00[london]", Err("whose time zone is not known (did you mean Europe/London?)")),
            ("2012-02-30T11:00[Europe/London]", Err("which is no such time")),
            ("noon[Europe/London]", Err("which is no such time")),
            ("1969-07-14T11:00[Europe/London]", Err("which lies before 1970")),
            ("[", Err("whose time zone is not known")),
        ] {
            assert_eq!(parse_moment(text), unix_ms.map(UnixMillis).map_err(str::to_owned), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(amount in any::<u64>(), parts in 0_u32..=1_000_000) {
            prop_assert_eq!(parse_size(&show_size(amount)), Some(amount));
            prop_assert_eq!(parse_span(&show_span(Duration::from_micros(amount))), Some(Duration::from_micros(amount)));
            let share = Share::from_parts_per_million(parts);
            prop_assert_eq!(parse_share(&show_share(share)), Some(share));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            let _ = (parse_span(&text), parse_size(&text), parse_share(&text), parse_moment(&text));
        }
    }
}
