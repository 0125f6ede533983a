//! Tests of the monitor: hysteresis, windows, probes, clocks that jump.

use super::*;
use proptest::prelude::*;

const SECOND: u64 = 1000;

fn monitor() -> Monitor {
    Monitor::new(Config::default(), 7)
}

fn window(until: u64) -> Active {
    Active { until: UnixMillis(until), reason: "move".into(), by_hand: true }
}

/// Feeds signals one second apart and returns the transitions as text.
fn run(monitor: &mut Monitor, signals: &[Signal]) -> Vec<String> {
    let mut log = Vec::new();
    for (second, &signal) in (1..).zip(signals) {
        log.extend(monitor.observe(signal, UnixMillis(second * SECOND)).map(|it| shown(&it)));
    }
    log
}

fn shown(transition: &Transition) -> String {
    format!("{} to {}: {}", transition.from.label(), transition.to.label(), transition.cause)
}

#[test]
fn failures_in_a_row_make_it_down_and_successes_up() {
    use Signal::{Failed, Gone, Succeeded};
    let check = |signals: &[Signal], expected: &[&str]| assert_eq!(run(&mut monitor(), signals), expected);
    check(&[Failed, Failed, Succeeded, Failed, Failed], &[]);
    check(&[Failed, Failed, Failed, Failed, Gone], &["up to down: 3 failures in a row"]);
    check(&[Gone, Gone], &["up to down: a failure that leaves no doubt"]);
    check(&[Gone, Succeeded, Failed, Succeeded], &["up to down: a failure that leaves no doubt"]);
    check(
        &[Gone, Succeeded, Succeeded, Succeeded],
        &["up to down: a failure that leaves no doubt", "down to up: 2 successes in a row"],
    );
}

#[test]
fn zero_counts_as_one() {
    let config = Config { down_after: 0, up_after: 0, ..Config::default() };
    let log = run(&mut Monitor::new(config, 1), &[Signal::Failed, Signal::Succeeded]);
    assert_eq!(log, ["up to down: a failure", "down to up: a success"]);
}

#[test]
fn a_window_wins_and_its_end_waits_for_a_probe() {
    let mut monitor = monitor();
    let mut tick = |window: Option<Active>, now| {
        let tick = monitor.tick(window, UnixMillis(now));
        (tick.transition.map(|it| shown(&it)), tick.probe)
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(tick(None, 1), (None, false));
    assert_eq!(tick(Some(window(90)), 2), (text("up to window: a window began"), false));
    assert_eq!(tick(Some(window(90)), 3), (None, false));
    assert_eq!(tick(Some(window(50)), 4), (text("window to window: the window was changed"), false));
    assert_eq!(monitor.observe(Signal::Gone, UnixMillis(5)), None);
    assert_eq!(monitor.observe(Signal::Succeeded, UnixMillis(6)), None);
    assert_eq!((monitor.health().label(), monitor.probe_at()), ("window", None));

    let ended = monitor.tick(None, UnixMillis(50));
    let cause = "window to down: the window ended, not yet seen to be back";
    assert_eq!((ended.transition.map(|it| shown(&it)), ended.probe), (text(cause), true));
    assert_eq!(monitor.health(), Health::Down { since: UnixMillis(50), cause: Cause::WindowEnded });
    let back = monitor.observe(Signal::Succeeded, UnixMillis(51)).map(|it| shown(&it));
    assert_eq!(back, text("down to up: a success"));
}

#[test]
fn a_window_takes_over_from_an_outage() {
    let mut monitor = monitor();
    let _ = monitor.observe(Signal::Gone, UnixMillis(1));
    let tick = monitor.tick(Some(window(10_000)), UnixMillis(5000));
    assert_eq!(tick.transition.map(|it| shown(&it)), Some("down to window: a window began".to_owned()));
    assert!(!tick.probe);
}

/// The moments of probes within `span_ms`, ticking every 10 ms, every probe failing.
fn probes(seed: u64, span_ms: u64) -> Vec<u64> {
    let mut monitor = Monitor::new(Config::default(), seed);
    let _ = monitor.observe(Signal::Gone, UnixMillis(0));
    let mut probes = Vec::new();
    for now in (0..span_ms).step_by(10) {
        if monitor.tick(None, UnixMillis(now)).probe {
            probes.push(now);
            let _ = monitor.observe(Signal::Gone, UnixMillis(now));
        }
    }
    probes
}

#[test]
fn probes_back_off_to_a_bound_and_edges_do_not_probe_in_step() {
    let moments = probes(1, 120 * SECOND);
    let gaps: Vec<_> = moments.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(moments[0] <= SECOND, "{moments:?}");
    for (gap, longest) in gaps.iter().zip([1, 2, 4, 8, 10, 10, 10, 10]) {
        assert!((longest * 500..=longest * SECOND + 10).contains(gap), "{gaps:?}");
    }
    assert!(gaps.iter().all(|gap| *gap <= 10 * SECOND + 10), "{gaps:?}");
    assert_eq!(moments, probes(1, 120 * SECOND));
    assert_ne!(moments, probes(2, 120 * SECOND));
}

#[test]
fn after_a_first_success_the_proof_comes_soon() {
    let mut monitor = monitor();
    let _ = monitor.observe(Signal::Gone, UnixMillis(0));
    for now in (0..60 * SECOND).step_by(100) {
        let _ = monitor.tick(None, UnixMillis(now));
    }
    let now = UnixMillis(60 * SECOND);
    assert_eq!(monitor.observe(Signal::Succeeded, now), None);
    assert!(monitor.probe_at().expect("down") <= now.after(Duration::from_secs(1)));
}

#[test]
fn a_clock_that_jumps_back_does_not_end_the_probes() {
    let mut monitor = monitor();
    let _ = monitor.observe(Signal::Gone, UnixMillis(1_000_000_000));
    assert!(monitor.tick(None, UnixMillis(5)).probe);
    assert!(monitor.probe_at().expect("down") <= UnixMillis(10_005));
}

proptest! {
    #[test]
    fn down_always_has_a_probe_near_and_no_change_is_told_twice(
        steps in prop::collection::vec((0..5u8, 0..100_000u64), 0..200),
        seed in any::<u64>(),
    ) {
        let mut monitor = Monitor::new(Config::default(), seed);
        let mut health = monitor.health();
        for (what, now) in steps {
            let now = UnixMillis(now);
            let transition = match what {
                0 => monitor.observe(Signal::Succeeded, now),
                1 => monitor.observe(Signal::Failed, now),
                2 => monitor.observe(Signal::Gone, now),
                _ => {
                    let tick = monitor.tick((what == 3).then(|| window(now.0 + 1)), now);
                    let label = monitor.health().label();
                    prop_assert!(!tick.probe || label == "down", "a probe while {label}");
                    prop_assert_eq!(monitor.probe_at().is_some(), label == "down");
                    if let Some(at) = monitor.probe_at() {
                        prop_assert!(at.since(now) <= Duration::from_secs(10));
                    }
                    tick.transition
                }
            };
            if let Some(Transition { from, to, .. }) = transition {
                prop_assert_eq!(from, health);
                health = to;
            }
            prop_assert_eq!(monitor.health(), health.clone());
        }
    }
}
