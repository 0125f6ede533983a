//! One order at an authority, from the first request to the chain.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationHandle, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error,
    Identifier, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use zeroize::{Zeroize as _, Zeroizing};

use super::Way;
use super::account::{NONCE_TRIES, despite_nonces};
use super::answers::{Answers, Proof};
use super::failure::{Failure, is_bad_nonce};
use super::name::Name;
use super::record::printable;

/// The authority is asked so often how far it is: after this, and after ever longer waits.
const POLL_FIRST: Duration = Duration::from_millis(200);
const POLL_GROWTH: f32 = 1.4;

/// What is ordered, and how.
pub(crate) struct Wish<'a> {
    pub(crate) name: &'a Name,
    pub(crate) profile: Option<&'a str>,
    pub(crate) replaces: Option<&'a str>,
    /// In the order in which they are tried, one with each attempt.
    pub(crate) ways: &'a [Way],
    pub(crate) attempt: u32,
    /// How long the authority may take for each of its decisions.
    pub(crate) deadline: Duration,
}

/// A private key and the chain that was issued for it, both in PEM and neither checked.
pub(crate) struct Delivered {
    pub(crate) key: Zeroizing<String>,
    pub(crate) chain: String,
}

/// Orders one certificate.
///
/// # Cancel safety
/// Dropped, it leaves an order at the authority that ends by itself; nothing on this side.
///
/// # Errors
/// [`Failure`].
pub(crate) async fn order(
    account: &Account,
    answers: &Arc<Answers>,
    wish: &Wish<'_>,
) -> Result<Delivered, Failure> {
    let mut order = open(account, wish).await?;
    if order.state().status == OrderStatus::Pending {
        // The proofs are answered until the authority has come to its verdict.
        let _proofs = prove(&mut order, answers, wish).await?;
        let policy = RetryPolicy::new().initial_delay(POLL_FIRST).backoff(POLL_GROWTH).timeout(wish.deadline);
        match despite_nonces!(order.poll_ready(&policy)) {
            Ok(OrderStatus::Ready) => {}
            Ok(_) => return Err(verdict(&mut order).await),
            Err(Error::Api(problem)) => {
                let told = verdict(&mut order).await;
                return Err(if told.why.is_empty() { Failure::of_problem(&problem) } else { told });
            }
            Err(error) => return Err(error.into()),
        }
    }
    let (key, request) = request(wish.name)?;
    despite_nonces!(order.finalize_csr(&request))?;
    let policy = RetryPolicy::new().initial_delay(POLL_FIRST).backoff(POLL_GROWTH).timeout(wish.deadline);
    let chain = despite_nonces!(order.poll_certificate(&policy))?;
    Ok(Delivered { key, chain })
}

/// Opens an order that names the certificate which it replaces, and one that does not if the authority
/// will not have that.
async fn open(account: &Account, wish: &Wish<'_>) -> Result<Order, Failure> {
    let identifiers = [Identifier::Dns(wish.name.as_str().to_owned())];
    let new = || {
        let new = NewOrder::new(&identifiers);
        match wish.profile {
            Some(profile) => new.profile(profile),
            None => new,
        }
    };
    if let Some((issuer, serial)) = wish.replaces.and_then(|id| id.split_once('.')) {
        let id = CertificateIdentifier { authority_key_identifier: issuer.into(), serial: serial.into() };
        let new = new().replaces(id);
        match despite_nonces!(account.new_order(&new)).map_err(Failure::from) {
            Err(failure) if failure.not_a_successor => {}
            other => return other,
        }
    }
    let new = new();
    Ok(despite_nonces!(account.new_order(&new))?)
}

/// Makes every authorization of the order provable and tells the authority to look.
async fn prove(order: &mut Order, answers: &Arc<Answers>, wish: &Wish<'_>) -> Result<Vec<Proof>, Failure> {
    let mut tries = 0;
    'again: loop {
        let mut proofs = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let authorization = match authorization {
                // The iterator has gone past it, so it begins anew; what it has is not asked again.
                Err(error) if is_bad_nonce(&error) && tries < NONCE_TRIES => {
                    tries += 1;
                    continue 'again;
                }
                other => other?,
            };
            match authorization.status {
                AuthorizationStatus::Valid => {}
                AuthorizationStatus::Pending => proofs.extend(prove_one(authorization, answers, wish).await?),
                _ => return Err(Failure::of_name("the authority's authorization can't be used any more")),
            }
        }
        return Ok(proofs);
    }
}

async fn prove_one(
    mut authorization: AuthorizationHandle<'_>,
    answers: &Arc<Answers>,
    wish: &Wish<'_>,
) -> Result<Option<Proof>, Failure> {
    if authorization.identifier().to_string() != wish.name.as_str() {
        return Err(Failure::of_authority("the authority wants another name proven than was ordered"));
    }
    let offered = |way: Way| authorization.challenges.iter().any(|challenge| challenge.r#type == way.kind());
    let start = usize::try_from(wish.attempt).unwrap_or(0) % wish.ways.len().max(1);
    let turned = wish.ways.iter().cycle().skip(start).take(wish.ways.len());
    let Some(way) = turned.copied().find(|way| offered(*way)) else {
        return Err(Failure::of_name("the authority offers no way to prove the name that is allowed here"));
    };
    let Some(mut challenge) = authorization.challenge(way.kind()) else {
        return Err(Failure::of_authority("the authority's challenge is gone"));
    };
    let proof = match way {
        // Any token is answered with the account's thumbprint: there is nothing to prepare.
        Way::Http01 => None,
        Way::TlsAlpn01 => {
            let digest = challenge.key_authorization().digest();
            let proof = answers.prove(wish.name, digest.as_ref());
            Some(proof.map_err(|error| Failure::here(format!("no certificate for the proof: {error}")))?)
        }
    };
    despite_nonces!(challenge.set_ready())?;
    Ok(proof)
}

impl Way {
    fn kind(self) -> ChallengeType {
        match self {
            Self::Http01 => ChallengeType::Http01,
            Self::TlsAlpn01 => ChallengeType::TlsAlpn01,
        }
    }
}

/// Why the authority did not accept the proof: the problem of the challenge says more than the order's.
async fn verdict(order: &mut Order) -> Failure {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let refreshed = despite_nonces!(async { authorization.refresh().await.map(|_| ()) });
        if refreshed.is_err() {
            continue;
        }
        if let Some(problem) = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref())
        {
            return Failure::of_problem(problem);
        }
    }
    match &order.state().error {
        Some(problem) => Failure::of_problem(problem),
        None => Failure::of_name("the authority did not accept the proof, and does not say why"),
    }
}

/// A new key with the request for its certificate. Never asks for Must-Staple, which authorities refuse
/// by now.
fn request(name: &Name) -> Result<(Zeroizing<String>, Vec<u8>), Failure> {
    let fault = |error: rcgen::Error| Failure::here(format!("no key: {}", printable(&error.to_string())));
    let mut key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(fault)?;
    let mut params = CertificateParams::new(vec![name.as_str().to_owned()]).map_err(fault)?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(fault)?.der().to_vec();
    let pem = Zeroizing::new(key.serialize_pem());
    key.zeroize();
    Ok((pem, request))
}
