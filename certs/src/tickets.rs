//! The tickets by which clients resume: sealed with keys that follow from one secret and the time.
//!
//! ```text
//!  secret ─HKDF-SHA256─▶ key of each six hours (name, AES-256-GCM-SIV)
//!  ticket = name (16) | nonce (12) | sealed session | tag (16)
//! ```
//!
//! Invariants:
//! - Edges with the same secret and about the same time know each other's tickets: those of the six
//!   hours before and after are taken, too.
//! - A ticket is good for six hours at least and twelve at most; then its key is gone.
//! - No key is ever written anywhere; the secret is overwritten when it is let go.
//!
//! A nonce is drawn for each ticket. The cipher is one that a nonce drawn twice by two of many edges
//! does not break.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

use crate::UnixSeconds;

/// How long a ticket is good at least, and how often keys turn, in seconds.
pub const TICKET_LIFETIME_S: u32 = 6 * 60 * 60;

const NAME_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
const SALT: &[u8] = b"holdfast tickets 1";

/// What all edges that resume each other's sessions share; at least 32 bytes that nobody can guess.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

impl Secret {
    /// Fewer bytes are refused.
    pub const BYTES_MIN: usize = 32;

    /// Takes the bytes of a secret; `None` when they are too few.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        let bytes = Zeroizing::new(bytes);
        (bytes.len() >= Self::BYTES_MIN).then(|| Self(Arc::new(bytes)))
    }

    /// One that no other edge has, and this one only until it ends.
    ///
    /// # Panics
    /// When the operating system has no randomness.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = Zeroizing::new(vec![0; Self::BYTES_MIN]);
        rand::fill(&mut bytes).expect("the operating system has randomness");
        Self(Arc::new(bytes))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        *self.0 == *other.0
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// The two ends of one set of keys: who turns them, and who seals and opens with them.
#[must_use]
pub fn tickets(secret: Secret, now: UnixSeconds) -> (TicketKeys, Ticketer) {
    let epoch = epoch(now);
    let ring = Arc::new(ArcSwap::from_pointee(Ring::new(&secret, epoch)));
    (TicketKeys { secret, epoch, ring: Arc::clone(&ring) }, Ticketer { ring })
}

/// The writing end.
#[derive(Debug)]
pub struct TicketKeys {
    secret: Secret,
    epoch: i64,
    ring: Arc<ArcSwap<Ring>>,
}

impl TicketKeys {
    /// Turns the keys when their time has come; to be called far more often than every six hours.
    pub fn turn(&mut self, now: UnixSeconds) {
        let epoch = epoch(now);
        if epoch != self.epoch {
            self.epoch = epoch;
            self.publish();
        }
    }

    /// Uses another secret from now on: tickets of the one before open nothing any more.
    pub fn replace(&mut self, secret: Secret) {
        if secret != self.secret {
            self.secret = secret;
            self.publish();
        }
    }

    fn publish(&self) {
        self.ring.store(Arc::new(Ring::new(&self.secret, self.epoch)));
    }
}

fn epoch(now: UnixSeconds) -> i64 {
    now.0.div_euclid(i64::from(TICKET_LIFETIME_S))
}

/// The reading end: seals and opens tickets.
#[derive(Clone, Debug)]
pub struct Ticketer {
    ring: Arc<ArcSwap<Ring>>,
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        TICKET_LIFETIME_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let ring = self.ring.load();
        let key = ring.keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(NAME_BYTES + NONCE_LEN + plain.len() + AES_256_GCM_SIV.tag_len());
        ticket.extend_from_slice(&key.name);
        ticket.extend_from_slice(&nonce);
        let mut sealed = plain.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        key.cipher.seal_in_place_append_tag(nonce, Aad::from(key.name), &mut sealed).ok()?;
        ticket.append(&mut sealed);
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, ticket) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = ticket.split_first_chunk::<NONCE_LEN>()?;
        let ring = self.ring.load();
        // Names are no secrets: each stands in clear in its tickets.
        let key = ring.keys.iter().find(|key| key.name == *name)?;
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let bytes = key.cipher.open_in_place(nonce, Aad::from(key.name), &mut opened).ok()?.len();
        opened.truncate(bytes);
        Some(opened)
    }
}

/// The keys of this epoch, the one before and the one after, this one first.
struct Ring {
    keys: [Key; 3],
}

impl Ring {
    fn new(secret: &Secret, epoch: i64) -> Self {
        Self { keys: [epoch, epoch - 1, epoch + 1].map(|epoch| Key::new(secret, epoch)) }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ring")
    }
}

struct Key {
    name: [u8; NAME_BYTES],
    cipher: LessSafeKey,
}

impl Key {
    fn new(secret: &Secret, epoch: i64) -> Self {
        let pseudo_random = Salt::new(HKDF_SHA256, SALT).extract(&secret.0);
        let mut bytes = Zeroizing::new([0; NAME_BYTES + KEY_BYTES]);
        let epoch = epoch.to_be_bytes();
        pseudo_random
            .expand(&[&epoch], Length)
            .and_then(|material| material.fill(&mut *bytes))
            .expect("as many bytes as HKDF gives");
        let (name, key) = bytes.split_at(NAME_BYTES);
        let cipher = UnboundKey::new(&AES_256_GCM_SIV, key).expect("a key of the cipher's length");
        Self { name: name.try_into().expect("its length"), cipher: LessSafeKey::new(cipher) }
    }
}

/// How much is derived for one epoch.
struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        NAME_BYTES + KEY_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: i64 = TICKET_LIFETIME_S as i64;

    fn secret(fill: u8) -> Secret {
        Secret::new(vec![fill; 32]).unwrap()
    }

    fn at(epoch: i64) -> UnixSeconds {
        UnixSeconds(epoch * LIFETIME + 1)
    }

    #[test]
    fn a_ticket_is_good_for_its_own_epoch_and_the_next() {
        let (mut keys, ticketer) = tickets(secret(1), at(100));
        let ticket = ticketer.encrypt(b"session").unwrap();
        for epoch in [100, 101] {
            keys.turn(at(epoch));
            assert_eq!(ticketer.decrypt(&ticket).as_deref(), Some(&b"session"[..]), "{epoch}");
        }
        keys.turn(at(102));
        assert_eq!(ticketer.decrypt(&ticket), None);
    }

    #[test]
    fn edges_with_one_secret_know_each_others_tickets_whoever_turns_first() {
        let (_early, one) = tickets(secret(1), at(100));
        let (_late, other) = tickets(secret(1), at(101));
        let (_stranger, third) = tickets(secret(2), at(100));
        let (old, new) = (one.encrypt(b"a").unwrap(), other.encrypt(b"b").unwrap());
        assert_eq!(other.decrypt(&old).as_deref(), Some(&b"a"[..]));
        assert_eq!(one.decrypt(&new).as_deref(), Some(&b"b"[..]));
        assert_eq!(third.decrypt(&old), None);
    }

    #[test]
    fn a_changed_or_cut_ticket_opens_nothing() {
        let (mut keys, ticketer) = tickets(Secret::random(), at(1));
        let ticket = ticketer.encrypt(b"session").unwrap();
        assert_ne!(ticket, ticketer.encrypt(b"session").unwrap(), "a nonce of its own");
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(ticketer.decrypt(&changed), None, "byte {at}");
            assert_eq!(ticketer.decrypt(&ticket[..at]), None, "{at} bytes");
        }
        keys.replace(Secret::random());
        assert_eq!(ticketer.decrypt(&ticket), None, "sealed with the secret before");
    }

    #[test]
    fn a_short_secret_is_none_and_none_is_shown() {
        assert!(Secret::new(vec![1; 31]).is_none());
        assert_eq!(format!("{:?}", secret(1)), "Secret(***)");
    }
}
