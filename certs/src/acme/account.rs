//! The account at the authority: found on disk, made when the first order needs it, changed to a new key.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, Key, NewAccount};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Authority;
use super::answers::Answers;
use super::event::AccountChange;
use super::failure::Failure;
use super::http::Http;
use super::seal::Seal;
use super::storage::Storage;

/// Requests are repeated so often when the authority does not take their nonce: Pebble can be told to
/// refuse nine of ten.
pub(super) const NONCE_TRIES: u32 = 40;

/// Repeats a call of the ACME library while the authority does not take its nonces.
macro_rules! despite_nonces {
    ($call:expr) => {{
        let mut tries = 0;
        loop {
            match $call.await {
                Err(error)
                    if tries < $crate::acme::account::NONCE_TRIES
                        && $crate::acme::failure::is_bad_nonce(&error) =>
                {
                    tries += 1;
                }
                other => break other,
            }
        }
    }};
}
pub(super) use despite_nonces;

/// What is stored of an account.
pub(crate) struct Stored {
    directory: String,
    url: String,
    /// PKCS#8 in DER.
    key: Zeroizing<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
struct Written<'a> {
    version: u32,
    directory: &'a str,
    url: &'a str,
    key: &'a str,
}

const VERSION: u32 = 1;

impl Stored {
    fn of(credentials: &AccountCredentials, account: &Account, directory: &str) -> Self {
        let key = Zeroizing::new(credentials.private_key().secret_pkcs8_der().to_vec());
        Self { directory: directory.to_owned(), url: account.id().to_owned(), key }
    }

    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let key = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.key.as_slice()));
        let written = Written { version: VERSION, directory: &self.directory, url: &self.url, key: &key };
        // Of full length from the start: a vector that grows leaves copies of the key behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(1024 + self.directory.len() + self.url.len()));
        serde_json::to_writer(&mut *bytes, &written).expect("text is always written to memory");
        bytes
    }

    /// # Errors
    /// It is none, or of another directory, or its key can't be used.
    pub(crate) fn decode(bytes: &[u8], directory: &str) -> Result<Self, AccountFault> {
        let written: Written<'_> = serde_json::from_slice(bytes).map_err(|_| AccountFault::Text)?;
        if written.version != VERSION || written.directory != directory {
            return Err(AccountFault::Other);
        }
        let key = Zeroizing::new(URL_SAFE_NO_PAD.decode(written.key).map_err(|_| AccountFault::Key)?);
        let stored = Self { directory: written.directory.to_owned(), url: written.url.to_owned(), key };
        stored.thumbprint()?;
        Ok(stored)
    }

    /// The thumbprint of the public key (RFC 7638), known without asking anybody.
    pub(crate) fn thumbprint(&self) -> Result<String, AccountFault> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.key)
            .map_err(|_| AccountFault::Key)?;
        let (x, y) = pair
            .public_key()
            .as_ref()
            .get(1..)
            .and_then(|point| point.split_at_checked(32))
            .ok_or(AccountFault::Key)?;
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let jwk = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        Ok(URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, jwk.as_bytes())))
    }

    fn der(&self) -> PrivatePkcs8KeyDer<'_> {
        PrivatePkcs8KeyDer::from(self.key.as_slice())
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_struct("Stored").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Why a stored account can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccountFault {
    Key,
    Other,
    Text,
}

impl fmt::Display for AccountFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "its private key can't be used",
            Self::Other => "it is of another authority or version",
            Self::Text => "its text is damaged",
        })
    }
}

/// The entry of the account at a directory.
pub(crate) fn entry(directory: &str) -> String {
    let sum = digest::digest(&digest::SHA256, directory.as_bytes());
    let short: String = sum.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("account-{short}.json")
}

/// The one account, which all orders share.
pub(crate) struct Accounts {
    authority: Authority,
    http: Http,
    storage: Arc<dyn Storage>,
    answers: Arc<Answers>,
    /// Held while an account is made or restored, so that only one is.
    live: tokio::sync::Mutex<Option<Account>>,
    /// Taken to copy or replace the pointer.
    stored: Mutex<Option<Arc<Stored>>>,
}

impl Accounts {
    pub(crate) fn new(
        authority: Authority,
        http: Http,
        storage: Arc<dyn Storage>,
        answers: Arc<Answers>,
        stored: Option<Stored>,
    ) -> Self {
        if let Some(Ok(thumbprint)) = stored.as_ref().map(Stored::thumbprint) {
            answers.set_thumbprint(thumbprint);
        }
        let stored = Mutex::new(stored.map(Arc::new));
        Self { authority, http, storage, answers, live: tokio::sync::Mutex::new(None), stored }
    }

    /// The account, ready for orders; what happened to it on the way goes to `changed`.
    ///
    /// # Cancel safety
    /// Dropped while an account is being made, it may leave one at the authority that nobody has.
    pub(crate) async fn account(&self, changed: &mut Option<AccountChange>) -> Result<Account, Failure> {
        let mut live = self.live.lock().await;
        if let Some(account) = &*live {
            return Ok(account.clone());
        }
        let account = match self.stored() {
            Some(stored) => self.restored(&stored).await?,
            None => {
                *changed = Some(AccountChange::Created);
                self.made().await?
            }
        };
        *live = Some(account.clone());
        Ok(account)
    }

    /// The authority does not know the account: the next order registers its key anew, or makes a new
    /// one where the authority wants a binding. Does nothing when that has happened since.
    ///
    /// # Errors
    /// The authority refuses, or the new account can't be stored.
    pub(crate) async fn lost(&self, account: &Account) -> Result<AccountChange, Failure> {
        let mut live = self.live.lock().await;
        if live.as_ref().is_some_and(|live| live.id() != account.id()) {
            return Ok(AccountChange::Registered);
        }
        *live = None;
        let stored = self.stored().filter(|_| self.authority.binding.is_none());
        let Some(stored) = stored else {
            *live = Some(self.made().await?);
            return Ok(AccountChange::Created);
        };
        let (account, credentials) = despite_nonces!(async {
            let key = Key::from_pkcs8_der(stored.der())?;
            let der = PrivateKeyDer::Pkcs8(stored.der().clone_key());
            self.builder().create_from_key((key, der), self.authority.directory.clone()).await
        })?;
        self.keep(&account, &credentials).await?;
        *live = Some(account);
        Ok(AccountChange::Registered)
    }

    /// Changes the account to a new key (RFC 8555, section 7.3.5).
    ///
    /// # Cancel safety
    /// Dropped after the authority has changed it and before it is stored, the account is lost and the
    /// next order makes a new one.
    ///
    /// # Errors
    /// The authority refuses, or the new key can't be stored.
    pub(crate) async fn roll(&self) -> Result<(), Failure> {
        let mut account = self.account(&mut None).await?;
        let mut live = self.live.lock().await;
        let credentials = despite_nonces!(account.update_key())?;
        self.keep(&account, &credentials).await?;
        *live = Some(account);
        Ok(())
    }

    /// What seals records for the other edges; none before there is an account.
    pub(crate) fn seal(&self) -> Option<Seal> {
        Seal::new(&self.stored()?.key).ok()
    }

    fn stored(&self) -> Option<Arc<Stored>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn builder(&self) -> instant_acme::AccountBuilder {
        Account::builder_with_http(Box::new(self.http.clone()))
    }

    async fn restored(&self, stored: &Stored) -> Result<Account, Failure> {
        let (url, directory) = (stored.url.clone(), stored.directory.clone());
        Ok(self.builder().from_parts(url, stored.der(), directory).await?)
    }

    async fn made(&self) -> Result<Account, Failure> {
        let contact: Vec<&str> = self.authority.contacts.iter().map(String::as_str).collect();
        let new =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let binding = self
            .authority
            .binding
            .as_ref()
            .map(|binding| ExternalAccountKey::new(binding.id.clone(), &binding.key));
        let directory = &self.authority.directory;
        let made = despite_nonces!(self.builder().create(&new, directory.clone(), binding.as_ref()));
        let (account, credentials) = made.map_err(|error| Failure::of_account(error, binding.is_some()))?;
        self.keep(&account, &credentials).await?;
        Ok(account)
    }

    async fn keep(&self, account: &Account, credentials: &AccountCredentials) -> Result<(), Failure> {
        let stored = Stored::of(credentials, account, &self.authority.directory);
        let (storage, bytes) = (Arc::clone(&self.storage), stored.encode());
        let name = entry(&self.authority.directory);
        // In memory first: the authority has it, whether the disk has it or not.
        self.answers.set_thumbprint(account.key_thumbprint().to_owned());
        *self.stored.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(stored));
        match tokio::task::spawn_blocking(move || storage.write(&name, &bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::here(format!("the account can't be stored: {error}"))),
            Err(_) => Err(Failure::here("the account can't be stored: the storage panicked")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTORY: &str = "https://acme.example/directory";

    fn stored() -> Stored {
        let (_, der) = Key::generate_pkcs8().expect("a key");
        let key = Zeroizing::new(der.secret_pkcs8_der().to_vec());
        Stored { directory: DIRECTORY.to_owned(), url: "https://acme.example/account/1".to_owned(), key }
    }

    #[test]
    fn an_account_is_read_as_it_was_written() {
        let stored = stored();
        let bytes = stored.encode();
        let again = Stored::decode(&bytes, DIRECTORY).expect("it is read");
        assert_eq!((again.url.as_str(), again.key.as_slice()), (stored.url.as_str(), stored.key.as_slice()));
        assert_eq!(again.thumbprint(), stored.thumbprint());
        assert!(matches!(Stored::decode(&bytes, "https://other.example/"), Err(AccountFault::Other)));
    }

    #[test]
    fn a_damaged_account_is_refused_at_every_byte_that_is_missing() {
        let bytes = stored().encode();
        for length in 0..bytes.len() {
            assert!(Stored::decode(&bytes[..length], DIRECTORY).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn no_text_shows_a_key() {
        let stored = stored();
        let key = URL_SAFE_NO_PAD.encode(&stored.key);
        assert!(!format!("{stored:?}").contains(&key[60..100]));
    }

    /// The key was made by openssl, its thumbprint computed by other means.
    #[test]
    fn the_thumbprint_is_that_of_the_public_key() {
        let text = concat!(
            "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgXzgSeZSsvCCFjUlwH6eSjNvxn7dCuBvroNGXZwsVu12h",
            "RANCAATJ9K9Hj4nVogprQhjTq_VNqVApCafoGrzjwQ09YtrujPR2FntneV2xisyAAsrUm8Zvu6w2ezVLTYIA-wsh0VRU"
        );
        let key = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).expect("Base64"));
        let stored = Stored { directory: String::new(), url: String::new(), key };
        assert_eq!(stored.thumbprint().as_deref(), Ok("epXW1oYdcq05oDrEMTa98TvmXmliOHD9033I3HHQcAk"));
    }
}
