//! Table, overlay, fold, load and snapshot against a plain map.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proptest::prelude::*;

use super::builder::{Builder, Finished, Settings, fold};
use super::entry::Entry;
use super::namespaces::Namespaces;
use super::snapshot::{self, Meta};
use super::*;

const FORGET_AFTER_MS: u64 = 100;
const NAMESPACES: u8 = 3;
const TOKENS: u8 = 12;

fn settings(seed: u64) -> Settings {
    let guard =
        guard::Settings { forget_after: Duration::from_millis(FORGET_AFTER_MS), drop_max_ppm: 10_000 };
    Settings { seed, memory_bytes_max: 1 << 30, looked_up_max: u64::MAX, guard }
}

/// A row of a small universe: two bytes name the link, the others say what it is.
#[derive(Clone, Copy, Debug)]
struct Spec {
    namespace: u8,
    token: u8,
    state: State,
    target: u8,
    expires_at: Option<u64>,
    look_up: bool,
}

impl Spec {
    fn row<'a>(&self, texts: &'a mut (Vec<u8>, Vec<u8>, String)) -> Row<'a> {
        *texts = (vec![b'n', self.namespace], token(self.token), url(self.target));
        let (namespace, token, url) = texts;
        Row {
            namespace,
            token,
            url,
            campaign: campaign(self.target),
            append: self.target.is_multiple_of(2),
            expires_at: self.expires_at.map(UnixMillis),
            state: self.state,
        }
    }

    fn refused(&self) -> bool {
        self.state == State::Live && self.target == 0
    }
}

fn token(n: u8) -> Vec<u8> {
    // The last ones are long enough for a length of two bytes.
    if n >= 10 { vec![n; 250 + usize::from(n)] } else { vec![b't', n] }
}

fn url(n: u8) -> String {
    match n {
        0 => "javascript:alert(1)".to_owned(),
        n => format!("https://example.com/{n}?a=b#{n}"),
    }
}

fn campaign(n: u8) -> &'static [u8] {
    [&b""[..], b"spring", b"autumn"][usize::from(n) % 3]
}

prop_compose! {
    fn any_spec()(
        namespace in 0..NAMESPACES, token in 0..TOKENS, state in 0u8..6, target in 0u8..8,
        expires_at in proptest::option::of(0u64..600), look_up in any::<bool>(),
    ) -> Spec {
        let state = State::from_tag(state).unwrap_or(State::Live);
        Spec { namespace, token, state, target, expires_at, look_up }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Change(Vec<Spec>),
    Fold { seed: u64 },
    Load { seed: u64, rows: Vec<Spec>, meanwhile: Vec<Spec> },
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    let specs = |max: usize| proptest::collection::vec(any_spec(), 0..max);
    prop_oneof![
        4 => specs(8).prop_map(Step::Change),
        1 => any::<u64>().prop_map(|seed| Step::Fold { seed }),
        2 => (any::<u64>(), specs(40), specs(4)).prop_map(|(seed, rows, meanwhile)| Step::Load { seed, rows, meanwhile }),
        1 => Just(Step::Restart),
    ]
}

#[derive(Clone, Debug)]
struct Known {
    spec: Spec,
    origin: Origin,
    absent_since: Option<u64>,
}

impl Known {
    fn counts(&self, since: u64) -> u64 {
        let live = self.spec.state == State::Live && self.origin == Origin::Change;
        u64::from(live && self.spec.expires_at.is_none_or(|end| end > since))
    }
}

struct World {
    namespaces: Namespaces,
    links: Links,
    model: BTreeMap<(u8, u8), Known>,
    clock_max: u64,
    generation: u64,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self {
            namespaces: Namespaces::default(),
            links: Links::empty(3),
            model: BTreeMap::new(),
            clock_max: 0,
            generation: 0,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn change(&mut self, specs: &[Spec]) {
        let mut changes = Vec::new();
        for spec in specs {
            let mut texts = Default::default();
            let row = spec.row(&mut texts);
            let origin = if spec.look_up { Origin::LookUp } else { Origin::Change };
            let entry = Entry::approve(&row, origin);
            assert_eq!(entry.is_err(), spec.refused());
            let Ok(entry) = entry else { continue };
            self.model
                .insert((spec.namespace, spec.token), Known { spec: *spec, origin, absent_since: None });
            let namespace = self.namespaces.intern(row.namespace).unwrap();
            changes.push(Change { namespace, token: row.token.into(), entry: Arc::new(entry) });
        }
        self.links = self.links.with(changes);
    }

    fn take(&mut self, finished: Finished, now: u64) {
        self.clock_max = self.clock_max.max(now);
        assert_eq!(finished.table.made_at(), UnixMillis(now));
        self.links = self.links.rebuilt(Arc::new(finished.table), &finished.basis);
    }

    fn fold(&mut self, seed: u64, now: u64) {
        let finished =
            fold(self.links.clone(), self.namespaces.clone(), settings(seed), UnixMillis(now)).unwrap();
        self.take(finished, now);
        assert!(self.links.overlay().is_empty());
    }

    fn load(&mut self, seed: u64, rows: &[Spec], meanwhile: &[Spec], now: u64) {
        let mut builder = Builder::new(self.links.clone(), self.namespaces.clone(), settings(seed));
        let mut loaded = HashMap::new();
        for spec in rows {
            let mut texts = Default::default();
            builder.push(&spec.row(&mut texts)).unwrap();
            if !spec.refused() {
                let known = Known { spec: *spec, origin: Origin::Change, absent_since: None };
                loaded.insert((spec.namespace, spec.token), known);
            }
        }
        let finished = builder.finish(UnixMillis(now)).unwrap();
        let clock_max = self.clock_max.max(now);
        let mut counts = guard::Counts { rows: rows.len() as u64, ..guard::Counts::default() };
        counts.refused = rows.iter().filter(|spec| spec.refused()).count() as u64;
        counts.duplicates = counts.rows - counts.refused - loaded.len() as u64;
        self.model.retain(|key, known| {
            let since = known.absent_since.unwrap_or(clock_max);
            let counted = known.counts(since);
            counts.known += counted;
            if loaded.contains_key(key) {
                return true;
            }
            if now.saturating_sub(since) > FORGET_AFTER_MS {
                counts.forgotten += counted;
                return false;
            }
            if known.absent_since.replace(since).is_none() {
                counts.newly_absent += counted;
            }
            true
        });
        self.model.extend(loaded);
        assert_eq!(finished.counts, counts);
        assert_eq!(finished.refusals.len() as u64, counts.refused);
        self.change(meanwhile);
        self.take(finished, now);
    }

    /// Through a snapshot into a process that numbers namespaces otherwise.
    fn restart(&mut self, now: u64) {
        self.fold(now, now);
        self.generation += 1;
        let meta = Meta { watermark: -5, database: "database".to_owned() };
        snapshot::write(self.folder.path(), self.generation, self.links.table(), &meta).unwrap();
        self.namespaces = Namespaces::default();
        for n in (0..NAMESPACES).rev() {
            self.namespaces.intern(&[b'n', n]).unwrap();
        }
        let found =
            snapshot::load(self.folder.path(), &self.namespaces, snapshot::Damaged::SetAside).unwrap();
        assert!(found.faults.is_empty());
        let loaded = found.loaded.unwrap();
        assert_eq!((loaded.generation, &loaded.meta), (self.generation, &meta));
        assert_eq!(loaded.table.parts, self.links.table().parts);
        self.links = Links::new(Arc::new(loaded.table), Overlay::new(now));
    }

    #[track_caller]
    fn check(&self) {
        for namespace in 0..NAMESPACES {
            let Some(id) = self.namespaces.find(&[b'n', namespace]) else { continue };
            for n in 0..TOKENS {
                let known = self.model.get(&(namespace, n));
                let mut texts = Default::default();
                let expected = known.map(|known| known.spec.row(&mut texts));
                check_found(self.links.get(id, &token(n)), expected);
            }
            assert_eq!(self.links.get(id, b"unheard of"), None);
            // Asked for together, with gaps and more than once, they are the same.
            let tokens: Vec<Vec<u8>> = (0..TOKENS).map(token).collect();
            for first in 0..tokens.len() {
                let asked = std::array::from_fn(|n| {
                    (n % 5 != 3).then(|| (id, tokens[(first + n / 2) % tokens.len()].as_slice()))
                });
                let alone = asked.map(|asked| asked.and_then(|(id, token)| self.links.get(id, token)));
                assert_eq!(self.links.get_all(&asked), alone);
            }
        }
        let mut listed = 0;
        for link in self.links.table().iter() {
            listed += 1;
            if self.links.overlay().get(link.namespace, link.token).is_some() {
                continue;
            }
            let namespace = self.namespaces.name(link.namespace)[1];
            let known = &self.model[&(namespace, (0..TOKENS).find(|&n| token(n) == link.token).unwrap())];
            assert_eq!(link.absent_since, known.absent_since.map(UnixMillis));
            assert_eq!(link.origin, known.origin);
        }
        let stats = self.links.table().stats();
        assert_eq!(stats.links, listed);
        if self.links.overlay().is_empty() {
            let count = |pick: &dyn Fn(&Known) -> bool| {
                self.model.values().filter(|known| pick(known)).count() as u64
            };
            assert_eq!(stats.links, count(&|_| true));
            assert_eq!(stats.live, count(&|known| known.spec.state == State::Live));
            assert_eq!(stats.absent, count(&|known| known.absent_since.is_some()));
            assert_eq!(stats.looked_up, count(&|known| known.origin == Origin::LookUp));
        }
    }
}

#[track_caller]
fn check_found(found: Option<Found<'_>>, expected: Option<Row<'_>>) {
    match (found, expected) {
        (Some(Found::Live(link)), Some(row)) => {
            assert_eq!(row.state, State::Live);
            assert_eq!(link.target.as_bytes(), row.url.as_bytes());
            assert_eq!(
                (link.campaign, link.append, link.expires_at),
                (row.campaign, row.append, row.expires_at)
            );
        }
        (Some(Found::Disabled), Some(row)) => assert_eq!(row.state, State::Disabled),
        (Some(Found::Deleted), Some(row)) => assert_eq!(row.state, State::Deleted),
        (None, None) => {}
        (found, expected) => panic!("found {found:?}, expected {expected:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn links_say_the_same_as_a_map(steps in proptest::collection::vec((any_step(), 0u64..80, 0u64..20), 1..25)) {
        let mut world = World::new();
        let mut clock = 0;
        for (step, ahead, behind) in steps {
            clock += ahead;
            // A clock that is behind now and then must not make absences look old.
            let now = if behind < 2 { 0 } else { clock };
            match step {
                Step::Change(specs) => world.change(&specs),
                Step::Fold { seed } => world.fold(seed, now),
                Step::Load { seed, rows, meanwhile } => world.load(seed, &rows, &meanwhile, now),
                Step::Restart => world.restart(now),
            }
            world.check();
        }
    }
}
