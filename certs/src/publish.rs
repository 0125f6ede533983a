//! Where certificates of several sources become one index: the better one is served for each name.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::UnixSeconds;
use crate::index::Index;
use crate::pair::Pair;

/// The index that handshakes read, and what it is made of.
#[derive(Default)]
pub(crate) struct Published {
    pub(crate) index: ArcSwap<Index>,
    /// Held while an index is made, so that an older one never replaces a newer one; by control
    /// threads only.
    sources: Mutex<Sources>,
}

#[derive(Default)]
struct Sources {
    files: Vec<Arc<Pair>>,
    /// The name whose certificate stands for others'.
    default: Option<Box<str>>,
    issued: HashMap<Box<str>, Arc<Pair>>,
    /// When a date of what was issued is reached next, which the index does not notice by itself.
    issued_turns_at: Option<UnixSeconds>,
}

impl Published {
    /// Replaces what comes from files, and the name that stands for others.
    pub(crate) fn files(&self, files: Vec<Arc<Pair>>, default: Option<&str>, now: UnixSeconds) {
        self.publish(now, |sources| {
            sources.files = files;
            sources.default = default.map(Into::into);
        });
    }

    /// Whether a date of what was issued was reached since the index was made.
    pub(crate) fn has_turned(&self, now: UnixSeconds) -> bool {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.issued_turns_at.is_some_and(|at| at <= now)
    }

    fn publish(&self, now: UnixSeconds, change: impl FnOnce(&mut Sources)) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut sources);
        let dates = sources.issued.values().flat_map(|pair| [pair.chain.from, pair.chain.until.plus(1)]);
        sources.issued_turns_at = dates.filter(|&date| date > now).min();
        let pairs = sources.files.iter().chain(sources.issued.values());
        self.index.store(Arc::new(Index::of(pairs, sources.default.as_deref(), now)));
    }
}

/// The end of the index for certificates that were issued; those of files are merged with them by the
/// same rule: valid dates first, then the later end.
#[derive(Clone)]
pub struct Issued(pub(crate) Arc<Published>);

impl Issued {
    /// Serves these from now on; each replaces what was issued for its name before. Makes the index
    /// once, which takes a millisecond for some thousand names.
    pub(crate) fn put(&self, pairs: Vec<(Box<str>, Arc<Pair>)>, now: UnixSeconds) {
        self.0.publish(now, |sources| sources.issued.extend(pairs));
    }

    /// Serves none that was issued for the name.
    pub(crate) fn remove(&self, name: &str, now: UnixSeconds) {
        self.0.publish(now, |sources| {
            sources.issued.remove(name);
        });
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("index", &*self.0.index.load()).finish()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    use super::*;
    use crate::chain::Chain;
    use crate::folder::Keys;
    use crate::key::Key;

    const ECDSA: rustls::SignatureScheme = rustls::SignatureScheme::ECDSA_NISTP256_SHA256;

    /// 2026-07-01.
    const NOW: UnixSeconds = UnixSeconds(1_782_864_000);

    fn pair(until: i32) -> Arc<Pair> {
        let mut params = CertificateParams::new(vec!["click.brand.example".to_owned()]).expect("a name");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = Key::read(der).expect("a usable key");
        let chain = Chain::new(vec![certificate.der().clone()]).expect("a chain");
        let pair = Pair::new(&Arc::new(chain), &Keys::from([(key.public.clone(), Arc::new(key))]));
        Arc::new(pair.expect("it fits").expect("it is no issuer's"))
    }

    #[test]
    fn the_better_one_of_file_and_issued_is_served() {
        let published = Arc::new(Published::default());
        let issued = Issued(Arc::clone(&published));
        let [ended, sooner, later] = [2025, 2040, 2050].map(pair);
        let put = |pair: &Arc<Pair>| issued.put(vec![("click.brand.example".into(), Arc::clone(pair))], NOW);
        let serves = |pair: &Arc<Pair>| {
            let index = published.index.load();
            let choice = index.find("click.brand.example").expect("it is there");
            Arc::ptr_eq(choice.of(&[ECDSA]).expect("one"), &pair.certified)
        };
        published.files(vec![Arc::clone(&ended)], None, NOW);
        assert!(serves(&ended), "wrong dates are better than nothing");
        put(&sooner);
        assert!(serves(&sooner));
        published.files(vec![Arc::clone(&later)], None, NOW);
        assert!(serves(&later));
        published.files(Vec::new(), None, NOW);
        assert!(serves(&sooner), "files that go leave what was issued");
        put(&later);
        assert!(serves(&later), "a renewal takes the place of the one before");
        issued.remove("click.brand.example", NOW);
        assert!(published.index.load().find("click.brand.example").is_none());
    }

    /// An issued certificate that ended went on being shown, where a file's wildcard was there and nothing else
    /// was published.
    #[test]
    fn a_date_of_what_was_issued_makes_the_index_stale() {
        let published = Arc::new(Published::default());
        let issued = Issued(Arc::clone(&published));
        assert!(!published.has_turned(NOW));
        let pair = pair(2030);
        let until = pair.chain.until;
        issued.put(vec![("click.brand.example".into(), pair)], NOW);
        assert!(!published.has_turned(until));
        assert!(published.has_turned(until.plus(1)));
        published.files(Vec::new(), None, until.plus(1));
        assert!(!published.has_turned(until.plus(2)), "said once");
    }

    /// A host went from one type of key to another, or from a file of its own to a wildcard, and the old
    /// file stays where it is: it ended, and was shown to every client.
    #[test]
    fn what_ended_is_not_shown_beside_what_is_valid() {
        let issue = |name: &str, until: i32, algorithm: &'static rcgen::SignatureAlgorithm| {
            let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(until, 1, 1);
            let key = KeyPair::generate_for(algorithm).expect("a key");
            let certificate = params.self_signed(&key).expect("a certificate");
            let key = Key::read(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())));
            let key = key.expect("a usable key");
            let chain = Arc::new(Chain::new(vec![certificate.der().clone()]).expect("a chain"));
            let keys = Keys::from([(key.public.clone(), Arc::new(key))]);
            Arc::new(Pair::new(&chain, &keys).expect("it fits").expect("it is no issuer's"))
        };
        let ended = issue("click.brand.example", 2025, &rcgen::PKCS_ECDSA_P256_SHA256);
        let both = [ECDSA, rustls::SignatureScheme::ED25519];
        let shown = |beside: &Arc<Pair>| {
            let pairs = [Arc::clone(&ended), Arc::clone(beside)];
            let index = Index::of(pairs.iter(), None, NOW);
            let choice = index.find("click.brand.example").expect("one");
            (choice.is_in_date, Arc::ptr_eq(choice.of(&both).expect("one"), &beside.certified))
        };
        assert_eq!(shown(&issue("click.brand.example", 2050, &rcgen::PKCS_ED25519)), (true, true));
        assert_eq!(shown(&issue("*.brand.example", 2050, &rcgen::PKCS_ECDSA_P256_SHA256)), (true, true));
        assert_eq!(shown(&issue("*.brand.example", 2025, &rcgen::PKCS_ED25519)), (false, false));
    }
}
