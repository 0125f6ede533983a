//! Tests of windows: what is open, by hand and by plan, over reloads, restarts and clock jumps.

use super::*;
use proptest::prelude::*;

const DB: Part = Part::Database;

fn planned(from: u64, until: u64, reason: &str) -> Window {
    Window::new(DB, UnixMillis(from), UnixMillis(until), reason).expect("window")
}

/// Until, reason and by hand of the open window.
fn open(windows: &Windows, now: u64) -> Option<(u64, String, bool)> {
    windows
        .active(DB, UnixMillis(now))
        .map(|active| (active.until.0, active.reason.to_string(), active.by_hand))
}

fn is(until: u64, reason: &str, by_hand: bool) -> Option<(u64, String, bool)> {
    Some((until, reason.to_owned(), by_hand))
}

#[test]
fn a_planned_window_is_open_from_its_beginning_until_its_end() {
    let windows = Windows::new(vec![planned(10, 20, "move")]);
    assert_eq!(open(&windows, 9), None);
    assert_eq!(open(&windows, 10), is(20, "move", false));
    assert_eq!(open(&windows, 19), is(20, "move", false));
    assert_eq!(open(&windows, 20), None);
    assert_eq!(windows.active(Part::Journal, UnixMillis(15)), None);
}

#[test]
fn overlapping_windows_are_one() {
    let windows = Windows::new(vec![
        planned(18, 30, "b"),
        planned(10, 20, "a"),
        planned(30, 40, ""),
        planned(41, 50, "d"),
    ]);
    assert_eq!(open(&windows, 12), is(40, "a", false));
    assert_eq!(open(&windows, 19), is(40, "b", false));
    assert_eq!(open(&windows, 35), is(40, "", false));
    assert_eq!(open(&windows, 40), None);
    assert_eq!(windows.next_change(UnixMillis(20)), Some(UnixMillis(30)));
    assert_eq!(windows.next_change(UnixMillis(50)), None);
}

#[test]
fn a_window_by_hand_lasts_as_told_or_a_day() {
    let mut windows = Windows::default();
    let begun = windows.begin(DB, None, "", UnixMillis(1000)).expect("window");
    assert_eq!((begun.until, begun.by_hand), (UnixMillis(1000 + 24 * 3_600_000), true));
    assert!(windows.begin(DB, Some(UnixMillis(5000)), "sooner", UnixMillis(2000)).is_ok());
    assert_eq!(open(&windows, 2000), is(5000, "sooner", true));
    assert_eq!(open(&windows, 500), is(5000, "sooner", true), "the clock may jump back");
    assert_eq!(open(&windows, 5000), None);
    assert_eq!(windows.list(UnixMillis(5000)).len(), 1);
}

#[test]
fn a_window_by_hand_lengthens_a_planned_one_but_does_not_shorten_it() {
    let mut windows = Windows::new(vec![planned(10, 20, "plan")]);
    let until = |until| Some(UnixMillis(until));
    assert_eq!(windows.begin(DB, until(15), "hand", UnixMillis(12)).map(|it| it.until), Ok(UnixMillis(20)));
    assert_eq!(open(&windows, 12), is(20, "hand", true));
    assert_eq!(windows.begin(DB, until(25), "", UnixMillis(13)).map(|it| it.until), Ok(UnixMillis(25)));
    assert_eq!(open(&windows, 13), is(25, "plan", true));
    assert_eq!(windows.begin(DB, until(13), "", UnixMillis(13)), Err(WindowFault::Backwards));
    assert_eq!(open(&windows, 13), is(25, "plan", true), "a refused one changes nothing");
}

#[test]
fn ending_by_hand_ends_what_is_open_and_nothing_else() {
    let mut windows = Windows::new(vec![planned(10, 20, ""), planned(18, 30, "later")]);
    assert_eq!(windows.end(DB, UnixMillis(5)), Err(NotOpen(DB)));
    let _ = windows.begin(DB, None, "", UnixMillis(12)).expect("window");
    assert!(windows.end(DB, UnixMillis(13)).expect("open").by_hand);
    assert_eq!(open(&windows, 13), None);
    assert_eq!(open(&windows, 18), is(30, "later", false));
    let stages: Vec<_> = windows.list(UnixMillis(18)).iter().map(|it| it.stage.label()).collect();
    assert_eq!(stages, ["ended", "open"]);
}

#[test]
fn what_was_done_by_hand_survives_a_reload() {
    let mut windows = Windows::new(vec![planned(10, 20, "")]);
    let _ = windows.end(DB, UnixMillis(12)).expect("open");
    windows.reload(vec![planned(10, 20, "same window, other words")]);
    assert_eq!(open(&windows, 13), None);
    windows.reload(vec![planned(10, 21, "moved")]);
    assert_eq!(open(&windows, 13), is(21, "moved", false));
    let _ = windows.begin(DB, Some(UnixMillis(40)), "hand", UnixMillis(14)).expect("window");
    windows.reload(Vec::new());
    assert_eq!(open(&windows, 15), is(40, "hand", true));
}

#[test]
fn what_was_done_by_hand_survives_a_restart() {
    let plan = || vec![planned(10, 20, "")];
    let mut windows = Windows::new(plan());
    let _ = windows.end(DB, UnixMillis(12)).expect("open");
    let _ = windows.begin(DB, Some(UnixMillis(40)), "say \"hi\" – ü", UnixMillis(14)).expect("window");
    let json = windows.to_json();
    assert_eq!(
        json,
        "{\"version\":1,\"by_hand\":[{\"of\":\"database\",\"from\":14,\"until\":40,\
         \"reason\":\"say \\\"hi\\\" – ü\"}],\"ended\":[{\"of\":\"database\",\"from\":10,\"until\":20}]}"
    );
    assert_eq!(Windows::restore(plan(), json.as_bytes()).expect("text"), (windows, vec![]));
}

#[test]
fn a_stored_text_that_says_nothing_is_a_fault() {
    let fault = |json: &[u8]| Windows::restore(Vec::new(), json).expect_err("fault").to_string();
    assert_eq!(fault(b""), "stored windows can't be read");
    assert_eq!(fault(b"{\"version\":1}"), "stored windows can't be read");
    assert_eq!(
        fault(b"{\"version\":2,\"windows\":{}}"),
        "stored windows have version 2, this release reads 1"
    );
}

#[test]
fn a_stored_window_of_a_later_release_is_passed_over_and_told() {
    let json = br#"{"version":1,"new":[],"ended":[],"by_hand":[
        {"of":"upstream:shop","from":1,"until":9},{"of":"database","from":9,"until":1},
        {"of":"database","from":1,"until":9,"who":"me"}]}"#;
    let (windows, ignored) = Windows::restore(Vec::new(), json).expect("text");
    assert_eq!(ignored, [Ignored::Part("upstream:shop".into()), Ignored::Window(WindowFault::Backwards)]);
    assert_eq!(open(&windows, 2), is(9, "", true));
}

#[test]
fn what_can_not_be_planned_is_refused() {
    let new = |part, reason: &str| Window::new(part, UnixMillis(1), UnixMillis(2), reason).err();
    assert_eq!(new(Part::Journal, ""), Some(WindowFault::Part(Part::Journal)));
    assert_eq!(new(DB, "a\nb"), Some(WindowFault::Reason));
    assert_eq!(new(DB, &"x".repeat(501)), Some(WindowFault::Reason));
    assert_eq!(Window::new(DB, UnixMillis(2), UnixMillis(2), ""), Err(WindowFault::Backwards));
}

proptest! {
    // The one window that people see is exactly the union of those that are open.
    #[test]
    fn the_union_is_open_until_its_end(spans in prop::collection::vec((0..60u64, 1..15u64), 0..8), now in 0..80u64) {
        let windows = Windows::new(spans.iter().map(|(from, span)| planned(*from, from + span, "")).collect());
        let inside = |at: u64| spans.iter().any(|(from, span)| (*from..from + span).contains(&at));
        let expected = inside(now).then(|| (now..).find(|at| !inside(*at)).expect("an end"));
        prop_assert_eq!(open(&windows, now).map(|active| active.0), expected);
    }

    #[test]
    fn any_stored_bytes_are_windows_or_a_fault(json in "[\\PC\"{}:,0-9]{0,60}") {
        let _ = Windows::restore(Vec::new(), json.as_bytes());
    }
}
