//! Records that leave the edge: encrypted for whoever has the same account.
//!
//! ```text
//! 1 byte    version, 1
//! 12 bytes  nonce, random
//! n bytes   the record by AES-256-GCM, bound to its name
//! 16 bytes  tag
//! ```
//!
//! The key is derived by HKDF-SHA-256 from the account's private key, which every edge has anyway. A
//! random nonce of 96 bits allows four billion records before chance is worth a thought.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

const VERSION: u8 = 1;
const PURPOSE: &[u8] = b"holdfast: certificate records between edges, 1";

/// Seals and opens.
pub(crate) struct Seal(LessSafeKey);

impl Seal {
    /// From the account's private key in PKCS#8.
    ///
    /// # Errors
    /// The cryptography fails, which it does not.
    pub(crate) fn new(account_key: &[u8]) -> Result<Self, Unspecified> {
        let secret = Salt::new(HKDF_SHA256, b"").extract(account_key);
        let key = UnboundKey::from(secret.expand(&[PURPOSE], &AES_256_GCM)?);
        Ok(Self(LessSafeKey::new(key)))
    }

    pub(crate) fn seal(&self, name: &str, record: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce)?;
        // Long enough from the start, so that no plain text is left behind by a vector that grows.
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + record.len() + AES_256_GCM.tag_len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(record);
        let (_, text) = sealed.split_at_mut(1 + NONCE_LEN);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(name.as_bytes()), text)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// # Errors
    /// It was sealed for another account or name, or changed.
    pub(crate) fn open(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unspecified> {
        let (version, rest) = sealed.split_first().ok_or(Unspecified)?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or(Unspecified)?;
        if *version != VERSION {
            return Err(Unspecified);
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce)?;
        let mut text = Zeroizing::new(text.to_vec());
        let length = self.0.open_in_place(nonce, Aad::from(name.as_bytes()), &mut text)?.len();
        text.truncate(length);
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_for_the_same_account_and_name_only() {
        let seal = Seal::new(b"an account's key").expect("it is made");
        let other = Seal::new(b"another account's key").expect("it is made");
        let sealed = seal.seal("a.example", b"the record").expect("it is sealed");
        assert_eq!(seal.open("a.example", &sealed).expect("it opens").as_slice(), b"the record");
        assert!(seal.open("b.example", &sealed).is_err());
        assert!(other.open("a.example", &sealed).is_err());
        assert!(!sealed.windows(6).any(|window| window == b"record"));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(seal.open("a.example", &changed).is_err(), "byte {at}");
            assert!(seal.open("a.example", &sealed[..at]).is_err(), "cut at {at}");
        }
        assert_ne!(sealed, seal.seal("a.example", b"the record").expect("it is sealed"));
    }
}
