//! A moment in the words of a language and the local time of a site.

use super::language::Language;
use crate::event::UnixMillis;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// A moment, ready to stand on a page.
pub(super) struct Moment {
    /// For programs: `2012-07-14T15:00Z`.
    pub(super) machine: String,
    /// `16:00`, in the site's zone.
    pub(super) time: String,
    /// `Saturday 14 July (UTC+1)`.
    pub(super) day: String,
}

impl Moment {
    /// The first full minute that is not before `at`.
    pub(super) fn new(at: UnixMillis, zone: &TimeZone, language: Language) -> Self {
        let minute = i64::try_from(at.0.div_ceil(60_000).saturating_mul(60_000)).unwrap_or(i64::MAX);
        let timestamp = Timestamp::from_millisecond(minute).unwrap_or(Timestamp::MAX);
        let local = timestamp.to_zoned(zone.clone());
        Self {
            machine: timestamp.strftime("%Y-%m-%dT%H:%MZ").to_string(),
            time: local.strftime("%H:%M").to_string(),
            day: format!("{} ({})", day(&local, language), offset(&local)),
        }
    }
}

fn day(local: &Zoned, language: Language) -> String {
    let (weekdays, months) = calendar(language);
    let weekday = name(weekdays, local.weekday().to_monday_zero_offset());
    let month = name(months, local.month() - 1);
    match (language, local.day()) {
        (Language::En, day) => format!("{weekday} {day} {month}"),
        (Language::De, day) => format!("{weekday}, {day}. {month}"),
        (Language::Fr, 1) => format!("{weekday} 1er {month}"),
        (Language::Fr, day) => format!("{weekday} {day} {month}"),
        (Language::Es, day) => format!("{weekday}, {day} de {month}"),
    }
}

fn name(names: &'static str, at: i8) -> &'static str {
    let at = usize::try_from(at).expect("weekdays and months are counted from zero here");
    names.split(' ').nth(at).expect("a calendar names every weekday and month")
}

/// The weekdays from Monday, and the months.
const fn calendar(language: Language) -> (&'static str, &'static str) {
    match language {
        Language::En => (
            "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
            "January February March April May June July August September October November December",
        ),
        Language::De => (
            "Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonntag",
            "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
        ),
        Language::Fr => (
            "lundi mardi mercredi jeudi vendredi samedi dimanche",
            "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        ),
        Language::Es => (
            "lunes martes miércoles jueves viernes sábado domingo",
            "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
        ),
    }
}

/// `UTC`, `UTC+1`, `UTC−3:30`: names of zones say little to most readers.
fn offset(local: &Zoned) -> String {
    let minutes = local.offset().seconds() / 60;
    let (hours, rest) = (minutes.abs() / 60, minutes.abs() % 60);
    let sign = if minutes < 0 { '−' } else { '+' };
    match (hours, rest) {
        (0, 0) => "UTC".to_owned(),
        (_, 0) => format!("UTC{sign}{hours}"),
        _ => format!("UTC{sign}{hours}:{rest:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(at: &str, zone: &str, language: Language, expected: [&str; 3]) {
        let at: Timestamp = at.parse().unwrap();
        let at = UnixMillis(at.as_millisecond().try_into().unwrap());
        let moment = Moment::new(at, &TimeZone::get(zone).unwrap(), language);
        assert_eq!([&moment.machine, &moment.time, &moment.day].map(String::as_str), expected);
    }

    #[test]
    fn in_each_language_and_on_both_sides_of_a_clock_change() {
        use Language::{De, En, Es, Fr};
        let (summer, winter) = ("2012-07-14T15:00:00Z", "2012-12-01T00:00:00Z");
        check(summer, "UTC", En, ["2012-07-14T15:00Z", "15:00", "Saturday 14 July (UTC)"]);
        check(summer, "Europe/London", En, ["2012-07-14T15:00Z", "16:00", "Saturday 14 July (UTC+1)"]);
        check(summer, "Europe/Berlin", De, ["2012-07-14T15:00Z", "17:00", "Samstag, 14. Juli (UTC+2)"]);
        check(winter, "Europe/Paris", Fr, ["2012-12-01T00:00Z", "01:00", "samedi 1er décembre (UTC+1)"]);
        check(summer, "Europe/Paris", Fr, ["2012-07-14T15:00Z", "17:00", "samedi 14 juillet (UTC+2)"]);
        check(summer, "Europe/Madrid", Es, ["2012-07-14T15:00Z", "17:00", "sábado, 14 de julio (UTC+2)"]);
        check(
            winter,
            "America/St_Johns",
            En,
            ["2012-12-01T00:00Z", "20:30", "Friday 30 November (UTC−3:30)"],
        );
    }

    #[test]
    fn rounds_up_to_the_minute_and_never_promises_too_early() {
        check(
            "2012-07-14T15:00:00.001Z",
            "UTC",
            Language::En,
            ["2012-07-14T15:01Z", "15:01", "Saturday 14 July (UTC)"],
        );
        check(
            "2012-12-31T23:59:01Z",
            "UTC",
            Language::De,
            ["2013-01-01T00:00Z", "00:00", "Dienstag, 1. Januar (UTC)"],
        );
    }

    #[test]
    fn the_end_of_time_is_a_moment_too() {
        for zone in [TimeZone::UTC, TimeZone::get("Pacific/Kiritimati").unwrap()] {
            assert!(Moment::new(UnixMillis(u64::MAX), &zone, Language::En).machine.starts_with("9999-12-3"));
        }
    }

    #[test]
    fn calendars_are_whole() {
        for language in Language::ALL {
            let (weekdays, months) = calendar(language);
            assert_eq!((weekdays.split(' ').count(), months.split(' ').count()), (7, 12));
        }
    }
}
