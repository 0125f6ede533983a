//! The plan over simulated time: thousands of names, an authority that fails, limits and floods.

use super::*;
use crate::acme::limit::Rate;

const NOW: UnixSeconds = UnixSeconds(1_782_864_000);
const DAY: i64 = 24 * 3600;
const LIFETIME: i64 = 90 * DAY;

fn name(text: &str) -> Name {
    Name::parse(text).expect("a host name")
}

fn names(count: usize) -> HashSet<Name> {
    (0..count).map(|number| name(&format!("click.brand{number}.example"))).collect()
}

fn held_from(from: UnixSeconds, name: &Name) -> Held {
    let until = from.plus(LIFETIME);
    Held { from, until, renew_at: renewal(from, until, 1, name), id: Some(format!("id.{name}").into()) }
}

fn no_windows(from: UnixSeconds, name: &Name) -> Held {
    Held { id: None, ..held_from(from, name) }
}

fn bounds() -> Bounds {
    let plenty = Rate { count: 1_000_000, seconds: 60 };
    Bounds {
        per_domain: plenty,
        per_authority: plenty,
        demanded_max: 50,
        refused_max: 20,
        ..Bounds::default()
    }
}

fn plan(bounds: Bounds) -> Plan {
    Plan::new(bounds, true, 1)
}

fn ordered(starts: &[Start]) -> Vec<Name> {
    starts
        .iter()
        .filter_map(|start| match start {
            Start::Order { name, .. } => Some(name.clone()),
            _ => None,
        })
        .collect()
}

fn failed(blame: Blame) -> Ended {
    Ended::Failed { blame, why: "so it is".to_owned() }
}

/// An authority in simulated time, and everything that it was asked for.
struct World {
    plan: Plan,
    now: UnixSeconds,
    orders: Vec<(UnixSeconds, Name)>,
}

impl World {
    fn new(bounds: Bounds) -> Self {
        Self { plan: plan(bounds), now: NOW, orders: Vec::new() }
    }

    /// Lets time pass from one thing to do to the next; `end` says how each order ends.
    fn run(&mut self, until: UnixSeconds, mut end: impl FnMut(&Name, UnixSeconds) -> Ended) {
        let mut turns = 0;
        loop {
            turns += 1;
            assert!(turns < 2_000_000, "it turns without end at {:?}", self.now);
            let starts = self.plan.next(self.now);
            self.check();
            for start in starts {
                match start {
                    Start::Order { name, .. } => {
                        self.orders.push((self.now, name.clone()));
                        let ended = end(&name, self.now);
                        self.plan.ended(&name, ended, self.now);
                    }
                    Start::Window { name, .. } => self.plan.window(&name, Window::Failed, self.now),
                    Start::Forget { .. } => {}
                }
            }
            self.check();
            match self.plan.wake(self.now) {
                Some(at) if at <= until => self.now = self.now.max(at),
                _ => {
                    self.now = until;
                    return;
                }
            }
        }
    }

    /// Every entry stands where it belongs, and nowhere else.
    fn check(&self) {
        let plan = &self.plan;
        let filed = plan.names.values().filter(|entry| entry.filed.is_some()).count();
        assert_eq!(filed, plan.urgent.len() + plan.renewals.len() + plan.farewells.len());
        let running = plan.names.values().filter(|entry| entry.running.is_some()).count();
        assert_eq!(running, plan.running);
        assert!(plan.running <= plan.bounds.orders_at_once);
        let demanded = plan.names.values().filter(|entry| entry.demanded).count();
        assert_eq!(demanded, plan.demanded);
        assert!(demanded <= plan.bounds.demanded_max);
    }
}

#[test]
fn thousands_of_names_are_ordered_once_and_renewed_in_time_for_years() {
    let mut world = World::new(bounds());
    world.plan.wanted(names(2000), |_| false, NOW);
    world.run(NOW.plus(DAY), |name, now| Ended::Issued(no_windows(now, name)));
    assert_eq!(world.orders.len(), 2000);
    world.orders.clear();
    world.run(NOW.plus(365 * DAY), |name, now| Ended::Issued(no_windows(now, name)));
    // 365 days at 57 to 60 each.
    assert!((2000 * 6..=2000 * 7).contains(&world.orders.len()), "{}", world.orders.len());
    let mut last: HashMap<Name, UnixSeconds> = HashMap::new();
    for (at, name) in &world.orders {
        if let Some(before) = last.insert(name.clone(), *at) {
            let days = (at.0 - before.0) as f64 / DAY as f64;
            assert!((55.4..=60.1).contains(&days), "{name} after {days} days");
        }
    }
}

#[test]
fn renewals_of_what_was_issued_together_are_spread() {
    let mut per_hour: HashMap<i64, u32> = HashMap::new();
    for name in names(1000) {
        let held = held_from(NOW, &name);
        assert!(
            held.renew_at <= NOW.plus(LIFETIME / 3 * 2) && held.until.0 - held.renew_at.0 >= LIFETIME / 3
        );
        *per_hour.entry(held.renew_at.0 / 3600).or_default() += 1;
    }
    assert!(per_hour.len() > 90 && per_hour.values().all(|count| *count < 50), "{per_hour:?}");
}

#[test]
fn at_most_so_many_orders_run_and_a_place_is_kept_for_renewals() {
    let mut plan = plan(Bounds { orders_at_once: 4, ..bounds() });
    let old = name("old.brand.example");
    plan.restore(vec![(old.clone(), no_windows(NOW.plus(-70 * DAY), &old), false)], NOW);
    let mut wanted = names(100);
    wanted.insert(old.clone());
    plan.wanted(wanted, |_| false, NOW);
    let started = ordered(&plan.next(NOW));
    assert_eq!(started.len(), 4);
    assert!(started.contains(&old), "a renewal that is due has a place beside a hundred new names");
    assert!(plan.next(NOW).is_empty());
    plan.ended(&started[0], Ended::Issued(no_windows(NOW, &started[0])), NOW);
    assert_eq!(ordered(&plan.next(NOW)).len(), 1);
}

#[test]
fn a_late_renewal_goes_before_everything_else() {
    let mut plan = plan(Bounds { orders_at_once: 1, ..bounds() });
    let late = name("late.brand.example");
    plan.restore(vec![(late.clone(), no_windows(NOW.plus(-85 * DAY), &late), false)], NOW);
    let mut wanted = names(10);
    wanted.insert(late.clone());
    plan.wanted(wanted, |_| false, NOW);
    assert_eq!(ordered(&plan.next(NOW)), [late]);
}

#[test]
fn the_rate_of_the_authority_is_kept() {
    let mut world = World::new(Bounds { per_authority: Rate { count: 30, seconds: 3600 }, ..bounds() });
    world.plan.wanted(names(300), |_| false, NOW);
    world.run(NOW.plus(20 * 3600), |name, now| Ended::Issued(no_windows(now, name)));
    assert_eq!(world.orders.len(), 300);
    let took = world.orders[299].0.0 - NOW.0;
    assert!((9 * 3600..=10 * 3600).contains(&took), "{took} s");
}

#[test]
fn the_rate_of_a_registrable_domain_holds_its_own_names_only() {
    let mut world = World::new(Bounds { per_domain: Rate { count: 5, seconds: 7 * 86400 }, ..bounds() });
    let mut wanted: HashSet<Name> = (0..50).map(|number| name(&format!("c{number}.brand.co.uk"))).collect();
    wanted.insert(name("click.other.co.uk"));
    world.plan.wanted(wanted, |_| false, NOW);
    world.run(NOW.plus(3600), |name, now| Ended::Issued(no_windows(now, name)));
    assert_eq!(world.orders.len(), 6);
    assert!(world.orders.iter().any(|(_, name)| name.as_str() == "click.other.co.uk"));
    // A handshake is told at once that it will take long.
    let waiting = (0..50).map(|number| name(&format!("c{number}.brand.co.uk")));
    let waiting: Vec<Name> = waiting.filter(|name| world.plan.held(name.as_str()).is_none()).collect();
    assert!(matches!(world.plan.demand(&waiting[0], true, world.now), Demand::Later { .. }));
    world.run(NOW.plus(70 * DAY), |name, now| Ended::Issued(no_windows(now, name)));
    let firsts: HashSet<&Name> = world.orders.iter().map(|(_, name)| name).collect();
    assert_eq!(firsts.len(), 51);
    assert!(world.orders.len() > 56, "renewals are not held by it");
}

#[test]
fn an_authority_that_is_down_for_days_is_asked_ever_less_and_then_serves_all() {
    let mut world = World::new(bounds());
    world.plan.wanted(names(500), |_| false, NOW);
    let back = NOW.plus(3 * DAY);
    world.run(back, |_, _| failed(Blame::Authority { retry_after: None }));
    let tries = world.orders.len();
    assert!((72..200).contains(&tries), "{tries} tries in three days");
    let last = &world.orders[tries - 10..];
    assert!(last.windows(2).all(|pair| pair[1].0.0 - pair[0].0.0 >= 2700), "{last:?}");
    world.run(back.plus(2 * 3600), |name, now| Ended::Issued(no_windows(now, name)));
    assert_eq!(world.orders.len(), tries + 500);
    assert!(world.plan.list().iter().all(|listed| listed.failures == 0 && listed.validity.is_some()));
}

#[test]
fn while_the_authority_is_not_well_one_order_tries() {
    let mut plan = plan(bounds());
    plan.wanted(names(100), |_| false, NOW);
    let started = ordered(&plan.next(NOW));
    assert_eq!(started.len(), 8);
    for name in &started {
        plan.ended(name, failed(Blame::Authority { retry_after: None }), NOW);
    }
    assert!(plan.next(NOW).is_empty());
    let wake = plan.wake(NOW).expect("it is tried again");
    assert!(wake > NOW);
    assert_eq!(ordered(&plan.next(wake)).len(), 1);
}

#[test]
fn a_wait_that_the_authority_asks_for_is_kept() {
    let mut plan = plan(bounds());
    plan.wanted([name("a.example")].into(), |_| false, NOW);
    let started = ordered(&plan.next(NOW));
    plan.ended(&started[0], failed(Blame::Authority { retry_after: Some(5000) }), NOW);
    plan.wanted([name("a.example"), name("b.example")].into(), |_| false, NOW);
    assert_eq!(plan.wake(NOW), Some(NOW.plus(5000)));
    assert!(plan.next(NOW.plus(4999)).is_empty());
    assert_eq!(ordered(&plan.next(NOW.plus(5000))), [name("b.example")]);
}

#[test]
fn a_limit_of_one_domain_holds_that_domain_and_of_two_the_account() {
    let mut plan = plan(Bounds { orders_at_once: 1, ..bounds() });
    let limited = || failed(Blame::Domain { retry_after: Some(7200) });
    plan.wanted([name("a.one.example"), name("b.one.example"), name("a.two.example")].into(), |_| false, NOW);
    let first = ordered(&plan.next(NOW)).remove(0);
    plan.ended(&first, limited(), NOW);
    let mut others = Vec::new();
    while let Some(next) = ordered(&plan.next(NOW)).pop() {
        assert_ne!(next.registrable(), first.registrable());
        plan.ended(&next, limited(), NOW);
        others.push(next);
    }
    assert_eq!(others.len(), 1);
    // Two domains: the account is what was limited.
    plan.wanted([name("a.three.example")].into(), |_| false, NOW);
    assert!(plan.next(NOW.plus(7199)).is_empty());
    assert_eq!(ordered(&plan.next(NOW.plus(7200))).len(), 1);
}

#[test]
fn a_name_that_fails_is_tried_ever_less_and_holds_nobody_up() {
    let mut world = World::new(bounds());
    let mut wanted = names(20);
    let bad = name("elsewhere.brand.example");
    wanted.insert(bad.clone());
    world.plan.wanted(wanted, |_| false, NOW);
    world.run(NOW.plus(DAY), |name, now| {
        if *name == bad { failed(Blame::Name) } else { Ended::Issued(no_windows(now, name)) }
    });
    let tries: Vec<i64> =
        world.orders.iter().filter(|(_, name)| *name == bad).map(|(at, _)| at.0 - NOW.0).collect();
    assert!(tries.iter().filter(|at| **at < 3600).count() <= 6, "{tries:?}");
    assert!((8..=14).contains(&tries.len()), "{tries:?}");
    assert_eq!(world.orders.len(), 20 + tries.len());
    let listed = world.plan.list().into_iter().find(|listed| listed.name == bad).expect("it is listed");
    assert_eq!(listed.failures as usize, tries.len());
    assert!(listed.last_error.is_some_and(|(_, why)| why == "so it is"));
}

#[test]
fn a_name_on_which_the_authority_breaks_holds_nobody_up() {
    let mut world = World::new(bounds());
    let poison = name("poison.brand.example");
    let mut wanted = names(100);
    wanted.insert(poison.clone());
    world.plan.wanted(wanted, |_| false, NOW);
    world.run(NOW.plus(3600), |name, now| {
        let broken = failed(Blame::Authority { retry_after: None });
        if *name == poison { broken } else { Ended::Issued(no_windows(now, name)) }
    });
    assert_eq!(world.plan.status(world.now).held, 100);
}

#[test]
fn a_name_is_tried_at_once_when_somebody_asks_for_that() {
    let mut plan = plan(bounds());
    let bad = name("elsewhere.brand.example");
    plan.wanted([bad.clone()].into(), |_| false, NOW);
    plan.next(NOW);
    plan.ended(&bad, failed(Blame::Name), NOW);
    assert!(plan.next(NOW).is_empty());
    assert!(plan.renew(&bad, NOW));
    assert_eq!(ordered(&plan.next(NOW)), std::slice::from_ref(&bad));
    plan.ended(&bad, Ended::Issued(no_windows(NOW, &bad)), NOW);
    assert!(plan.next(NOW).is_empty());
    assert!(plan.renew(&bad, NOW));
    assert_eq!(ordered(&plan.next(NOW)), [bad]);
    assert!(!plan.renew(&name("unknown.example"), NOW));
}

#[test]
fn nothing_is_done_for_a_name_before_somebody_permits_it() {
    let mut plan = plan(bounds());
    let unknown = name("unknown.example");
    assert_eq!(plan.demand(&unknown, false, NOW), Demand::Unknown(Pass::Ask));
    assert!(plan.next(NOW).is_empty() && plan.list().is_empty());
    assert_eq!(plan.demand(&unknown, false, NOW), Demand::Unknown(Pass::Asked));
    assert!(matches!(plan.answered(&unknown, Verdict::No, NOW), Demand::Unknown(Pass::Refused { .. })));
    assert!(matches!(plan.demand(&unknown, false, NOW), Demand::Unknown(Pass::Refused { .. })));
    assert!(plan.next(NOW).is_empty() && plan.list().is_empty());
    // Then it comes with the snapshot.
    plan.wanted([unknown.clone()].into(), |_| false, NOW);
    assert_eq!(plan.demand(&unknown, false, NOW), Demand::Joined);
    assert_eq!(ordered(&plan.next(NOW)), [unknown]);
}

/// Whoever had said yes was asked at every handshake, and the handshakes were told that nobody had answered.
#[test]
fn a_permitted_name_that_a_rate_holds_back_is_told_so_and_not_asked_about_again() {
    let mut plan = plan(Bounds { per_domain: Rate { count: 4, seconds: 7 * 86400 }, ..bounds() });
    let late = name("late.brand.example");
    for number in 0..3 {
        let first = name(&format!("c{number}.brand.example"));
        assert_eq!(plan.demand(&first, false, NOW), Demand::Unknown(Pass::Ask));
        assert_eq!(plan.answered(&first, Verdict::Yes, NOW), Demand::Joined);
        if number == 2 {
            // Let in while there was room, and held back before it had its turn.
            assert_eq!(plan.demand(&late, false, NOW), Demand::Unknown(Pass::Ask));
            assert_eq!(plan.answered(&late, Verdict::Yes, NOW), Demand::Joined);
        }
        for name in ordered(&plan.next(NOW)) {
            plan.ended(&name, Ended::Issued(no_windows(NOW, &name)), NOW);
        }
    }
    let Demand::Later { until } = plan.look(&late, NOW) else { panic!("{:?}", plan.look(&late, NOW)) };
    assert_eq!(plan.demand(&late, false, NOW), Demand::Later { until });
    let other = name("other.brand.example");
    assert_eq!(plan.demand(&other, false, NOW), Demand::Unknown(Pass::Ask));
    assert_eq!(plan.answered(&other, Verdict::Yes, NOW), Demand::Later { until });
    assert_eq!(plan.look(&other, NOW), Demand::Later { until });
    assert_eq!(plan.demand(&other, false, until.plus(-1)), Demand::Later { until });
    assert_eq!(plan.demand(&other, false, until), Demand::Unknown(Pass::Ask), "it may be a no by then");
    assert_eq!((plan.status(NOW).refused, plan.status(NOW).names), (0, 3));
}

#[test]
fn a_permitted_name_is_ordered_and_joined_by_those_who_come_later() {
    let mut plan = plan(bounds());
    let new = name("new.example");
    assert_eq!(plan.demand(&new, false, NOW), Demand::Unknown(Pass::Ask));
    assert_eq!(plan.answered(&new, Verdict::Yes, NOW), Demand::Joined);
    assert_eq!(ordered(&plan.next(NOW)), std::slice::from_ref(&new));
    assert_eq!(plan.demand(&new, false, NOW), Demand::Joined);
    plan.ended(&new, Ended::Issued(no_windows(NOW, &new)), NOW);
    assert_eq!(plan.demand(&new, false, NOW), Demand::Held);
    assert_eq!(plan.look(&new, NOW), Demand::Held);
    assert!(plan.is_demanded("new.example"));
}

#[test]
fn a_flood_of_unknown_names_while_nobody_answers_leaves_known_names_alone() {
    let mut plan = plan(bounds());
    let known = names(10);
    plan.wanted(known.clone(), |_| false, NOW);
    let mut asked = 0;
    for number in 0..100_000 {
        let stranger = name(&format!("a{number}.stranger.example"));
        if plan.demand(&stranger, false, NOW) == Demand::Unknown(Pass::Ask) {
            asked += 1;
            plan.answered(&stranger, Verdict::Down, NOW);
        }
    }
    assert_eq!(asked, 3, "then nobody is asked for a while");
    assert_eq!((plan.list().len(), plan.status(NOW).refused), (10, 0));
    for name in &known {
        assert_eq!(plan.demand(name, false, NOW), Demand::Joined);
    }
    assert_eq!(ordered(&plan.next(NOW)).len(), 8);
}

#[test]
fn whoever_says_yes_to_all_fills_no_more_than_its_room() {
    let mut plan = plan(bounds());
    let mut full = 0;
    for number in 0..1000 {
        let stranger = name(&format!("a{number}.example"));
        assert_eq!(plan.demand(&stranger, false, NOW), Demand::Unknown(Pass::Ask));
        full += usize::from(plan.answered(&stranger, Verdict::Yes, NOW) == Demand::Full);
    }
    assert_eq!((plan.list().len(), full), (50, 950));
    // The configured ones still have theirs.
    plan.wanted(names(100), |_| false, NOW);
    assert_eq!(plan.list().len(), 150);
}

#[test]
fn a_demanded_name_that_keeps_failing_is_forgotten() {
    let mut world = World::new(bounds());
    let bad = name("elsewhere.example");
    world.plan.demand(&bad, false, NOW);
    world.plan.answered(&bad, Verdict::Yes, NOW);
    world.run(NOW.plus(3600), |_, _| failed(Blame::Name));
    assert_eq!(world.orders.len(), 3);
    assert_eq!(world.plan.status(world.now).names, 0);
    assert_eq!(world.plan.domains.len(), 1);
}

#[test]
fn a_demanded_name_is_asked_about_again_before_its_renewal() {
    let mut plan = plan(bounds());
    let new = name("new.example");
    plan.demand(&new, false, NOW);
    plan.answered(&new, Verdict::Yes, NOW);
    let confirm = |starts: Vec<Start>| match &starts[..] {
        [Start::Order { confirm, .. }] => *confirm,
        other => panic!("{other:?}"),
    };
    assert!(!confirm(plan.next(NOW)), "it was asked about just now");
    plan.ended(&new, Ended::Issued(no_windows(NOW, &new)), NOW);
    let due = NOW.plus(60 * DAY);
    assert!(confirm(plan.next(due)));
    plan.ended(&new, Ended::NotPermitted, due);
    assert!(plan.next(due.plus(DAY - 1)).is_empty());
    let asked_again = due.plus(DAY);
    assert!(confirm(plan.next(asked_again)), "one wrong answer does not end it");
    plan.ended(&new, Ended::Issued(no_windows(asked_again, &new)), asked_again);
    assert_eq!(plan.held("new.example").map(|held| held.until), Some(asked_again.plus(LIFETIME)));
}

#[test]
fn a_demanded_name_that_is_refused_day_after_day_is_served_to_its_end_and_forgotten() {
    let mut world = World::new(bounds());
    let new = name("new.example");
    world.plan.demand(&new, false, NOW);
    world.plan.answered(&new, Verdict::Yes, NOW);
    for day in 0..=LIFETIME / DAY {
        world.run(NOW.plus(day * DAY), |name, now| match now {
            NOW => Ended::Issued(no_windows(NOW, name)),
            _ => Ended::NotPermitted,
        });
        // From two thirds on it is refused.
        let alarms = world.plan.status(world.now).ends_first.is_some();
        assert!(alarms == (day < 60) || (50..60).contains(&day), "day {day}: {alarms}");
    }
    assert!((29..=36).contains(&world.orders.len()), "{}: once a day", world.orders.len());
    assert_eq!(world.plan.demand(&new, false, NOW.plus(LIFETIME - 1)), Demand::Held, "to its end");
    assert_eq!(world.plan.demanded, 0);
    let gone = NOW.plus(LIFETIME + 30 * DAY);
    assert_eq!(world.plan.next(gone), [Start::Forget { name: new }]);
    assert_eq!(world.plan.status(gone).names, 0);
}

#[test]
fn a_name_that_is_wanted_no_longer_is_served_to_its_end_and_not_renewed() {
    let mut plan = plan(bounds());
    let [stays, goes] = [name("stays.example"), name("goes.example")];
    plan.wanted([stays.clone(), goes.clone()].into(), |_| false, NOW);
    for name in ordered(&plan.next(NOW)) {
        plan.ended(&name, Ended::Issued(no_windows(NOW, &name)), NOW);
    }
    plan.wanted([stays.clone()].into(), |_| false, NOW);
    assert_eq!(ordered(&plan.next(NOW.plus(80 * DAY))), [stays]);
    assert!(!plan.renew(&goes, NOW));
    plan.wanted([goes.clone()].into(), |_| false, NOW.plus(81 * DAY));
    assert_eq!(ordered(&plan.next(NOW.plus(81 * DAY))), [goes]);
}

#[test]
fn the_authoritys_window_moves_the_renewal_within_reason() {
    let new = name("new.example");
    let at = |start: i64, end: i64| {
        let mut plan = plan(bounds());
        plan.wanted([new.clone()].into(), |_| false, NOW);
        plan.next(NOW);
        plan.ended(&new, Ended::Issued(held_from(NOW, &new)), NOW);
        assert_eq!(plan.next(NOW), [Start::Window { name: new.clone(), id: "id.new.example".into() }]);
        let (start, end) = (NOW.plus(start), NOW.plus(end));
        plan.window(&new, Window::Suggested { start, end, retry_after: Some(60) }, NOW);
        assert_eq!(plan.wake(NOW), Some(plan.list()[0].due_at.expect("filed").clamp(NOW, NOW.plus(3600))));
        plan.list()[0].due_at.expect("filed").0 - NOW.0
    };
    assert!((10 * DAY..11 * DAY).contains(&at(10 * DAY, 11 * DAY)));
    assert_eq!(at(-2 * DAY, -DAY), 6 * 3600, "soon: it will be revoked");
    assert_eq!(at(200 * DAY, 201 * DAY), 60 * DAY, "never after two thirds");
    let fixed = renewal(NOW, NOW.plus(LIFETIME), 1, &new).0 - NOW.0;
    assert_eq!(at(11 * DAY, 10 * DAY), fixed, "a window that ends before it begins is none");
}

#[test]
fn an_authority_without_windows_is_asked_for_one_once() {
    let mut plan = plan(bounds());
    plan.wanted(names(100), |_| false, NOW);
    let mut asked = 0;
    for turn in 0..1000 {
        for start in plan.next(NOW.plus(turn)) {
            match start {
                Start::Order { name, .. } => {
                    plan.ended(&name, Ended::Issued(held_from(NOW, &name)), NOW.plus(turn));
                }
                Start::Window { name, .. } => {
                    asked += 1;
                    plan.window(&name, Window::Unsupported, NOW.plus(turn));
                }
                Start::Forget { .. } => panic!("nothing is forgotten"),
            }
        }
    }
    assert!(asked <= 8, "{asked}");
    let starts = plan.next(NOW.plus(61 * DAY));
    assert!(matches!(&starts[0], Start::Order { replaces: None, .. }), "{:?}", starts[0]);
}

#[test]
fn a_renewal_names_what_it_replaces() {
    let mut plan = plan(bounds());
    let old = name("old.example");
    plan.restore(vec![(old.clone(), held_from(NOW.plus(-61 * DAY), &old), false)], NOW);
    plan.wanted([old.clone()].into(), |_| false, NOW);
    let order =
        plan.next(NOW).into_iter().find(|start| matches!(start, Start::Order { .. })).expect("an order");
    let replaces = Some("id.old.example".into());
    assert_eq!(order, Start::Order { name: old, attempt: 0, replaces, confirm: false });
}

#[test]
fn a_certificate_that_is_due_as_soon_as_it_is_there_is_not_ordered_over_and_over() {
    let mut world = World::new(bounds());
    world.plan.wanted([name("a.example")].into(), |_| false, NOW);
    // The authority's clock is eighty days behind ours.
    world.run(NOW.plus(DAY - 1), |name, now| Ended::Issued(no_windows(now.plus(-80 * DAY), name)));
    assert_eq!(world.orders.len(), 4);
}

#[test]
fn a_lock_that_is_held_elsewhere_costs_the_name_nothing() {
    let mut world = World::new(bounds());
    world.plan.wanted([name("a.example")].into(), |_| false, NOW);
    world.run(NOW.plus(3600), |_, _| failed(Blame::Lock));
    assert!((120..400).contains(&world.orders.len()), "{}", world.orders.len());
    let listed = world.plan.list().remove(0);
    assert_eq!(listed.failures, 0);
    world.run(NOW.plus(3700), |name, now| Ended::Adopted(no_windows(now, name)));
    assert!(world.plan.held("a.example").is_some());
}

#[test]
fn a_lock_that_is_held_elsewhere_spends_none_of_the_rates() {
    let rates = Bounds::default();
    let mut world = World::new(rates);
    let waiting: HashSet<Name> = (0..20).map(|number| name(&format!("c{number}.brand.example"))).collect();
    world.plan.wanted(waiting, |_| false, NOW);
    world.run(NOW.plus(6 * 3600), |_, _| failed(Blame::Lock));
    assert!(world.orders.len() > rates.per_domain.count as usize * 4, "{}", world.orders.len());
    let back = world.now;
    world.orders.clear();
    world.run(back.plus(3600), |name, now| Ended::Issued(no_windows(now, name)));
    assert_eq!(world.orders.len(), 20, "as if nothing had been");
}

#[test]
fn what_another_edge_has_ordered_counts_for_as_long_as_it_does_at_the_authority() {
    let rate = Rate { count: 10, seconds: 3600 };
    let adopted = |bounds: Bounds, wanted: HashSet<Name>, age: i64| {
        let mut world = World::new(bounds);
        world.plan.wanted(wanted, |_| false, NOW);
        world.run(NOW.plus(60), |name, now| Ended::Adopted(no_windows(now.plus(-age), name)));
        world.orders.len()
    };
    for (age, expected) in [(0, 10), (3599, 10), (3600, 100)] {
        let of_authority = Bounds { per_authority: rate, ..bounds() };
        assert_eq!(adopted(of_authority, names(100), age), expected, "{age} s ago, on the shared account");
        let of_domain = Bounds { per_domain: rate, ..bounds() };
        let one_domain = (0..100).map(|number| name(&format!("c{number}.brand.example"))).collect();
        assert_eq!(adopted(of_domain, one_domain, age), expected, "{age} s ago, of the same domain");
    }
}

/// Each edge once ordered as many as the rate allows, and took nothing off for what it had from the other.
#[test]
fn two_edges_of_one_account_keep_to_the_rate_together() {
    let per_domain = Rate { count: 40, seconds: 7 * 86400 };
    let wanted: HashSet<Name> = (0..100).map(|number| name(&format!("c{number}.brand.example"))).collect();
    let mut edges = [(); 2].map(|()| plan(Bounds { per_domain, ..bounds() }));
    for edge in &mut edges {
        edge.wanted(wanted.clone(), |_| false, NOW);
    }
    let mut issued: HashSet<Name> = HashSet::new();
    for turn in 0..200 {
        let now = NOW.plus(turn * 5);
        edges.rotate_left(1);
        let starts = edges.each_mut().map(|edge| ordered(&edge.next(now)));
        // Whoever comes first takes the name; the other finds it taken, or what was issued for it before.
        let mut taken: HashSet<Name> = HashSet::new();
        for (edge, names) in edges.iter_mut().zip(starts) {
            for name in names {
                let held = no_windows(NOW, &name);
                let ended = match (issued.contains(&name), taken.insert(name.clone())) {
                    (true, _) => Ended::Adopted(held),
                    (false, true) => Ended::Issued(held),
                    (false, false) => failed(Blame::Another),
                };
                edge.ended(&name, ended, now);
            }
        }
        issued.extend(taken);
    }
    assert_eq!(issued.len(), 40);
}

#[test]
fn strangers_below_a_known_domain_leave_room_and_rate_to_those_that_are_wanted() {
    let per_domain = Rate { count: 20, seconds: 7 * 86400 };
    let mut world = World::new(Bounds { per_domain, ..bounds() });
    for number in 0..1000 {
        let stranger = name(&format!("a{number}.brand.example"));
        world.plan.demand(&stranger, true, NOW);
        world.run(NOW, |name, now| Ended::Issued(no_windows(now, name)));
    }
    assert_eq!(world.orders.len(), 15, "three quarters of what the domain may have");
    let later = world.plan.demand(&name("a999.brand.example"), true, NOW);
    assert!(matches!(later, Demand::Later { .. }), "{later:?}");
    assert_eq!(world.plan.list().len(), 15, "who must wait takes nobody's room");
    // Of another domain, somebody permits a name; and of this one, three are configured.
    assert_eq!(world.plan.demand(&name("click.other.example"), true, NOW), Demand::Joined);
    let wanted: HashSet<Name> = (0..3).map(|number| name(&format!("c{number}.brand.example"))).collect();
    world.plan.wanted(wanted, |_| false, NOW);
    world.run(NOW, |name, now| Ended::Issued(no_windows(now, name)));
    assert_eq!(world.orders.len(), 19);
}

#[test]
fn a_demanded_name_that_a_file_covers_is_ordered_no_more() {
    let mut world = World::new(bounds());
    let [held, waits, other] =
        [name("held.brand.example"), name("waits.brand.example"), name("held.other.example")];
    for name in [&held, &other] {
        world.plan.demand(name, true, NOW);
    }
    world.run(NOW, |name, now| Ended::Issued(no_windows(now, name)));
    world.plan.demand(&waits, true, NOW);
    world.plan.wanted(HashSet::new(), |name| name.ends_with(".brand.example"), NOW);
    world.run(NOW.plus(LIFETIME), |name, now| Ended::Issued(no_windows(now, name)));
    let renewed: Vec<&Name> = world.orders.iter().skip(2).map(|(_, name)| name).collect();
    assert_eq!(renewed, [&other]);
    assert_eq!(world.plan.demand(&held, true, NOW), Demand::Held, "served to its end");
}

/// It once stayed without renewal, and was ordered by the first handshake after its end.
#[test]
fn a_demanded_name_that_a_file_covered_for_a_while_is_renewed_as_before() {
    let mut world = World::new(bounds());
    let held = name("held.brand.example");
    world.plan.demand(&held, true, NOW);
    world.run(NOW, |name, now| Ended::Issued(no_windows(now, name)));
    world.plan.wanted(HashSet::new(), |_| true, NOW.plus(DAY));
    assert!(world.plan.status(NOW.plus(DAY)).ends_first.is_none(), "nobody need be alarmed");
    world.plan.wanted(HashSet::new(), |_| false, NOW.plus(2 * DAY));
    world.run(NOW.plus(LIFETIME), |name, now| Ended::Issued(no_windows(now, name)));
    assert_eq!(world.orders.len(), 2);
    assert!(world.plan.held(held.as_str()).unwrap().until > NOW.plus(LIFETIME));
}

#[test]
fn an_imported_certificate_of_a_known_name_is_renewed_and_another_is_not() {
    let mut world = World::new(bounds());
    let [known, unknown] = [name("known.brand.example"), name("unknown.brand.example")];
    world.plan.imported(&known, no_windows(NOW, &known), true, NOW);
    world.plan.imported(&unknown, no_windows(NOW, &unknown), false, NOW);
    world.run(NOW.plus(LIFETIME), |name, now| Ended::Issued(no_windows(now, name)));
    let renewed: Vec<&Name> = world.orders.iter().map(|(_, name)| name).collect();
    assert_eq!(renewed, [&known]);
}

/// Each takeover that came to nothing once gave the rates back what the authority had counted.
#[test]
fn an_order_that_a_takeover_cuts_off_is_counted() {
    let rate = Rate { count: 10, seconds: 7 * 86400 };
    let mut world = World::new(Bounds { per_domain: rate, ..bounds() });
    world.plan.wanted([name("a.brand.example")].into(), |_| false, NOW);
    world.run(NOW.plus(3600), |_, _| failed(Blame::Cut));
    assert_eq!(world.orders.len(), 10);
}

/// A name was once filed hours ahead for the charge of an order that the authority never saw.
#[test]
fn a_name_that_waits_for_the_place_of_an_order_under_way_has_it_as_soon_as_it_is_given_back() {
    let rate = Rate { count: 1, seconds: 7 * 86400 };
    let mut plan = plan(Bounds { per_domain: rate, ..bounds() });
    plan.wanted([name("a.brand.example"), name("b.brand.example")].into(), |_| false, NOW);
    let started = ordered(&plan.next(NOW));
    assert_eq!(started.len(), 1);
    plan.ended(&started[0], Ended::NotPermitted, NOW);
    assert_eq!(ordered(&plan.next(NOW.plus(60))).len(), 1);
}

#[test]
fn a_restart_with_more_certificates_than_the_rate_waits_for_no_longer_than_the_rates_time() {
    let per_domain = Rate { count: 10, seconds: 86400 };
    let mut plan = plan(Bounds { per_domain, ..bounds() });
    let stored: Vec<_> = (0..500)
        .map(|number| name(&format!("c{number}.brand.example")))
        .map(|name| (name.clone(), no_windows(NOW.plus(-60), &name), false))
        .collect();
    plan.restore(stored, NOW);
    let new = name("new.brand.example");
    plan.wanted([new.clone()].into(), |_| false, NOW);
    assert!(plan.next(NOW).is_empty());
    assert!(plan.wake(NOW).is_some_and(|at| at < NOW.plus(86400)), "{:?}", plan.wake(NOW));
    assert!(ordered(&plan.next(NOW.plus(86400))).contains(&new));
}

#[test]
fn what_was_issued_before_a_restart_counts_against_the_rates() {
    let bounds = Bounds { per_authority: Rate { count: 10, seconds: 3600 }, ..bounds() };
    let mut plan = plan(bounds);
    let stored = names(10).into_iter().map(|name| (name.clone(), no_windows(NOW.plus(-60), &name), false));
    plan.restore(stored.collect(), NOW);
    plan.wanted([name("new.example")].into(), |_| false, NOW);
    assert!(plan.next(NOW).is_empty());
    assert_eq!(plan.wake(NOW), Some(NOW.plus(300)));
    assert_eq!(ordered(&plan.next(NOW.plus(300))).len(), 1);
}

#[test]
fn any_course_of_events_keeps_the_books() {
    for seed in 0..20_u64 {
        let bounds = Bounds {
            orders_at_once: 3,
            demanded_max: 7,
            per_domain: Rate { count: 4, seconds: 3600 },
            per_authority: Rate { count: 20, seconds: 3600 },
            ..bounds()
        };
        let mut world = World::new(bounds);
        let mut running: Vec<Name> = Vec::new();
        let mut asked: Vec<Name> = Vec::new();
        for step in 0..2000_u64 {
            let chance = |bound: i64| Chance::of(seed, (step, bound)).below(bound);
            let any = name(&format!("n{}.brand{}.example", chance(13), chance(5)));
            world.now = world.now.plus(chance(2000));
            let now = world.now;
            match chance(9) {
                0 => {
                    let wanted = (0..chance(12)).map(|number| name(&format!("n{number}.brand1.example")));
                    world.plan.wanted(wanted.collect(), |_| false, now);
                }
                1 | 2 => {
                    if world.plan.demand(&any, chance(4) == 0, now) == Demand::Unknown(Pass::Ask) {
                        asked.push(any);
                    }
                }
                3 => {
                    if let Some(name) = asked.pop() {
                        let verdict = [Verdict::Down, Verdict::No, Verdict::Yes][chance(3) as usize];
                        world.plan.answered(&name, verdict, now);
                    }
                }
                4 => {
                    let _ = world.plan.renew(&any, now);
                }
                5 | 6 => {
                    for start in world.plan.next(now) {
                        match start {
                            Start::Order { name, .. } => {
                                assert!(!running.contains(&name), "{name} is ordered twice at a time");
                                running.push(name);
                            }
                            Start::Window { name, .. } => {
                                let (start, end) = (now.plus(chance(99)), now.plus(chance(DAY)));
                                let window = Window::Suggested { start, end, retry_after: None };
                                world.plan.window(&name, window, now);
                            }
                            Start::Forget { name } => assert!(world.plan.held(name.as_str()).is_none()),
                        }
                    }
                }
                _ => {
                    if let Some(name) = running.pop() {
                        let ended = match chance(8) {
                            0 => failed(Blame::Name),
                            1 => failed(Blame::Authority { retry_after: None }),
                            2 => failed(Blame::Domain { retry_after: Some(600) }),
                            3 => failed(Blame::Here),
                            4 => Ended::NotPermitted,
                            5 => Ended::Adopted(held_from(now, &name)),
                            _ => Ended::Issued(held_from(now, &name)),
                        };
                        world.plan.ended(&name, ended, now);
                    }
                }
            }
            world.check();
            assert!(running.len() <= 3);
        }
    }
}
