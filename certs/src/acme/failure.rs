//! What went wrong with an authority, in words for people and with who has to change.

use std::fmt;

use instant_acme::{Error, Problem};

use super::http::{HttpFault, Turned};
use super::plan::Blame;
use super::record::{Damage, printable};

/// One failed order.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) blame: Blame,
    pub(crate) why: String,
    /// The authority does not know the account, or will not have it any more.
    pub(crate) account_lost: bool,
    /// The authority will not have the certificate as a successor of the one that was named.
    pub(crate) not_a_successor: bool,
}

impl Failure {
    pub(crate) fn of_name(why: impl Into<String>) -> Self {
        Self { blame: Blame::Name, why: why.into(), account_lost: false, not_a_successor: false }
    }

    pub(crate) fn of_authority(why: impl Into<String>) -> Self {
        let blame = Blame::Authority { retry_after: None };
        Self { blame, why: why.into(), account_lost: false, not_a_successor: false }
    }

    pub(crate) fn here(why: impl Into<String>) -> Self {
        Self { blame: Blame::Here, why: why.into(), account_lost: false, not_a_successor: false }
    }

    pub(crate) fn taken() -> Self {
        Self {
            blame: Blame::Another,
            ..Self::of_lock("another edge is ordering it, or has failed to and lets it rest")
        }
    }

    pub(crate) fn of_lock(why: impl Into<String>) -> Self {
        Self { blame: Blame::Lock, why: why.into(), account_lost: false, not_a_successor: false }
    }

    /// What is wrong with a problem document.
    pub(crate) fn of_problem(problem: &Problem) -> Self {
        let kind = kind(problem);
        let blame = match kind {
            "rateLimited" => Blame::Domain { retry_after: None },
            "accountDoesNotExist"
            | "externalAccountRequired"
            | "userActionRequired"
            | "serverInternal"
            | "badNonce"
            | "badPublicKey"
            | "badSignatureAlgorithm"
            | "invalidContact"
            | "unsupportedContact"
            | "invalidProfile" => Blame::Authority { retry_after: None },
            _ => Blame::Name,
        };
        Self {
            blame,
            why: told(problem),
            account_lost: kind == "accountDoesNotExist",
            not_a_successor: kind == "alreadyReplaced",
        }
    }
}

impl Failure {
    /// Why no account was made: then nothing can be ordered, for whatever name. A wrong binding is refused
    /// in the very words that a name which is not ours is.
    pub(crate) fn of_account(error: Error, is_bound: bool) -> Self {
        let Error::Api(problem) = &error else { return error.into() };
        let failure = Self::of_problem(problem);
        if failure.blame != Blame::Name {
            return failure;
        }
        Self::of_authority(detailed(
            match is_bound {
                true => "the authority makes no account with the binding (EAB) that is configured",
                false => "the authority makes no account",
            },
            problem,
        ))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => Self::of_problem(&problem),
            Error::Other(cause) => match cause.downcast::<Turned>() {
                Ok(turned) => Self::of_turned(&turned),
                Err(cause) => {
                    let transport = cause.is::<HttpFault>();
                    let mut failure = Self::of_authority(format!("the authority can't be used: {cause}"));
                    // Else it is the library's word for an order that does not name its predecessor.
                    failure.not_a_successor = !transport;
                    failure
                }
            },
            Error::Unsupported(what) => {
                let mut failure = Self::of_authority(format!("the authority does not support {what}"));
                failure.not_a_successor = true;
                failure
            }
            Error::Timeout(_) => {
                Self::of_authority("the authority did not come to an end with the order in time")
            }
            Error::Json(_) => Self::of_authority("the authority's answer is not what RFC 8555 describes"),
            other => Self::of_authority(format!("the authority can't be used: {other}")),
        }
    }
}

impl Failure {
    fn of_turned(turned: &Turned) -> Self {
        let told = turned.problem.as_ref().map(told);
        let why =
            told.unwrap_or_else(|| format!("the authority answers with status {}", turned.status.as_u16()));
        let limited = turned.problem.as_ref().is_some_and(|problem| kind(problem) == "rateLimited");
        let retry_after = turned.retry_after;
        let blame = if limited { Blame::Domain { retry_after } } else { Blame::Authority { retry_after } };
        Self { blame, why, account_lost: false, not_a_successor: false }
    }
}

impl From<Damage> for Failure {
    fn from(damage: Damage) -> Self {
        Self::of_name(format!("the authority's chain is not used: {damage}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// A nonce that the authority did not take says nothing of the request.
pub(crate) fn is_bad_nonce(error: &Error) -> bool {
    matches!(error, Error::Api(problem) if kind(problem) == "badNonce")
}

fn kind(problem: &Problem) -> &str {
    let whole = problem.r#type.as_deref().unwrap_or_default();
    whole.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(whole)
}

/// First what it means, then what the authority says.
fn told(problem: &Problem) -> String {
    let meaning = match kind(problem) {
        "accountDoesNotExist" => "the authority does not know the account",
        "alreadyReplaced" => "the certificate was replaced before",
        "badCSR" => "the authority does not take the key or the request",
        "caa" => "the name's CAA records do not allow this authority",
        "connection" => "the authority could not connect to the name",
        "dns" => "the name could not be looked up, or points nowhere",
        "externalAccountRequired" => "the authority wants an account of its own kind (EAB)",
        "incorrectResponse" => "the name answered the authority with something else; it may point elsewhere",
        "invalidProfile" => "the authority has no such profile",
        "rateLimited" => "too much was ordered in a short time",
        "rejectedIdentifier" => "the authority will not have certificates for this name",
        "serverInternal" => "the authority is not well",
        "tls" => "the authority could not complete a handshake with the name",
        "unauthorized" => "the name could not be proven to be ours; it may point elsewhere",
        "unsupportedIdentifier" => "the authority has no certificates for such names",
        "userActionRequired" => "somebody has to agree to new terms of the authority",
        _ => "the authority refuses",
    };
    detailed(meaning, problem)
}

fn detailed(meaning: &str, problem: &Problem) -> String {
    let mut text = meaning.to_owned();
    let details = problem.subproblems.iter().filter_map(|sub| sub.detail.as_ref());
    for detail in problem.detail.iter().chain(details).take(4) {
        text.push_str(": ");
        text.push_str(&printable(detail));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(json: &str) -> Problem {
        serde_json::from_str(json).expect("a problem document")
    }

    #[test]
    fn a_problem_document_is_told_in_words_and_blamed_on_who_can_change_it() {
        let check = |kind: &str, blame: Blame, words: &str| {
            let json = format!(r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"so it is"}}"#);
            let failure = Failure::of_problem(&problem(&json));
            assert_eq!(failure.blame, blame, "{kind}");
            assert!(failure.why.contains(words) && failure.why.ends_with("so it is"), "{}", failure.why);
        };
        let authority = Blame::Authority { retry_after: None };
        check("caa", Blame::Name, "CAA");
        check("connection", Blame::Name, "could not connect");
        check("rejectedIdentifier", Blame::Name, "will not have certificates");
        check("rateLimited", Blame::Domain { retry_after: None }, "too much");
        check("serverInternal", authority, "not well");
        check("externalAccountRequired", authority, "EAB");
        check("somethingNew", Blame::Name, "refuses");
        let wrong = r#"{"type":"urn:ietf:params:acme:error:unauthorized","detail":"so it is"}"#;
        let failure = Failure::of_account(Error::Api(problem(wrong)), true);
        assert_eq!(failure.blame, authority);
        assert_eq!(
            failure.why,
            "the authority makes no account with the binding (EAB) that is configured: so it is"
        );
        assert!(
            Failure::of_problem(&problem(r#"{"type":"urn:ietf:params:acme:error:accountDoesNotExist"}"#))
                .account_lost
        );
    }

    #[test]
    fn what_an_authority_says_can_not_forge_a_line_of_the_log() {
        let failure = Failure::of_problem(&problem(r#"{"detail":"one\ntwo\u001b[31m"}"#));
        assert!(!failure.why.contains(char::is_control), "{}", failure.why);
        let long = format!(r#"{{"detail":"{}"}}"#, "a".repeat(100_000));
        assert!(Failure::of_problem(&problem(&long)).why.len() < 1000);
    }

    #[test]
    fn a_wait_that_the_authority_asks_for_is_kept() {
        let turned = Turned {
            status: http::StatusCode::TOO_MANY_REQUESTS,
            problem: Some(problem(r#"{"type":"urn:ietf:params:acme:error:rateLimited"}"#)),
            retry_after: Some(3600),
        };
        let failure = Failure::from(Error::Other(Box::new(turned)));
        assert_eq!(failure.blame, Blame::Domain { retry_after: Some(3600) });
        let turned = Turned { status: http::StatusCode::BAD_GATEWAY, problem: None, retry_after: None };
        let failure = Failure::from(Error::Other(Box::new(turned)));
        assert_eq!(failure.blame, Blame::Authority { retry_after: None });
        assert!(failure.why.contains("502"));
    }
}
