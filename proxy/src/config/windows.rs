//! Planned maintenance as it stands in the configuration.

use crate::event::UnixMillis;
use crate::policy::{Part, Window, WindowFault};

use super::fault::{Wrong, quoted};
use super::reader::Section;
use super::units::parse_moment;

const MOMENT: &str = "a local time with its zone, such as \"2012-07-14T11:00[Europe/London]\"";

/// Reads one `[[window]]`; `None` after a fault.
pub(super) fn read(s: &mut Section<'_>) -> Option<Window> {
    let part = s.choice("of", Part::Database, &[(Part::Database.label(), Part::Database)]);
    let from = read_moment(s, "from");
    let until = read_moment(s, "until");
    let reason = s.text("reason", String::new(), "a text", |text| Ok(text.to_owned()), String::clone);
    let (from, until) = (from?, until?);
    Window::new(part, from, until, &reason)
        .map_err(|fault| match fault {
            WindowFault::Backwards => {
                s.fault("until", "found a time that is not after from", "allowed: a time after from");
            }
            WindowFault::Part(_) => s.fault("of", fault.to_string(), "allowed: \"database\""),
            WindowFault::Reason => {
                s.fault("reason", fault.to_string(), "allowed: one line of at most 500 bytes")
            }
        })
        .ok()
}

fn read_moment(s: &mut Section<'_>, key: &'static str) -> Option<UnixMillis> {
    // The text is kept beside the moment, so that the listing shows what was written.
    let parse = |text: &str| match parse_moment(text) {
        Ok(moment) => Ok((moment, text.to_owned())),
        Err(reason) => Err(Wrong::new(format!("{}, {reason}", quoted(text)), MOMENT)),
    };
    s.required(key, MOMENT, parse, |(_, text)| text.clone()).map(|(moment, _)| moment)
}
