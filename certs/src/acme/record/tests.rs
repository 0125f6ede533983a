//! Records as they are written, damaged, and given by an authority that errs.

use rcgen::{CertificateParams, KeyPair};

use super::*;

const DIRECTORY: &str = "https://acme.example/directory";

fn name() -> Name {
    Name::parse("click.brand.example").expect("a host name")
}

fn issued(names: &[&str]) -> (Zeroizing<String>, String) {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(names).expect("names").self_signed(&key).expect("a certificate");
    (Zeroizing::new(key.serialize_pem()), certificate.pem())
}

fn record() -> Record {
    let (key, chain) = issued(&["click.brand.example"]);
    Record::of(name(), DIRECTORY, key, &chain).expect("a record").0
}

fn refused(key: Zeroizing<String>, chain: &str) -> Damage {
    Record::of(name(), DIRECTORY, key, chain).err().expect("it is refused")
}

fn damaged(bytes: &[u8]) -> Damage {
    Record::decode(bytes).expect_err("it is damaged")
}

#[test]
fn a_record_is_read_as_it_was_written() {
    let mut record = record();
    record.renew_at = UnixSeconds(1_787_000_000);
    record.origin = Origin::Demanded;
    let bytes = record.encode();
    let again = Record::decode(&bytes).expect("it is read");
    assert_eq!(again.encode().as_slice(), bytes.as_slice());
    assert_eq!((again.renew_at, again.origin), (record.renew_at, record.origin));
    let Ok(served) = again.serve() else { panic!("it is not served") };
    assert_eq!(served.pair.chain.names, ["click.brand.example".into()]);
    assert!(bytes.starts_with(b"holdfast certificate 1\nname click.brand.example\n"));
}

#[test]
fn a_record_that_is_half_written_or_changed_is_none() {
    let bytes = record().encode();
    for length in 0..bytes.len() {
        assert!(Record::decode(&bytes[..length]).is_err(), "{length} bytes");
    }
    let body = bytes.windows(5).position(|window| window == b"-----").expect("a body");
    for at in body..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[at] ^= 0x04;
        assert_eq!(damaged(&changed), Damage::Checksum, "byte {at}");
    }
    assert_eq!(damaged(&vec![b'a'; RECORD_BYTES_MAX + 1]), Damage::TooLong);
    assert_eq!(damaged(b"\xff\xfe"), Damage::Head);
    assert_eq!(damaged(b""), Damage::Head);
}

#[test]
fn a_chain_that_was_not_ordered_is_refused() {
    let (key, chain) = issued(&["click.brand.example"]);
    let (other_key, other_chain) = issued(&["click.brand.example"]);
    assert_eq!(refused(other_key.clone(), &chain), Damage::OtherKey);
    assert_eq!(refused(key.clone(), ""), Damage::NoChain);
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_eq!(refused(key, garbage), Damage::Certificate);
    assert_eq!(refused(Zeroizing::new(String::new()), &chain), Damage::Key);
    for names in [&["evil.example"][..], &["click.brand.example", "evil.example"], &["*.brand.example"]] {
        let (key, chain) = issued(names);
        assert!(matches!(refused(key, &chain), Damage::OtherName { .. }), "{names:?}");
    }
    assert_eq!(refused(other_key, &other_chain.repeat(100)), Damage::TooLong);
}

#[test]
fn a_chain_out_of_order_is_refused() {
    let subject = |name: &str| {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params
    };
    let (root_key, other_key) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
    let root = subject("root").self_signed(&root_key).expect("a certificate");
    let other = subject("other").self_signed(&other_key).expect("a certificate");
    let issuer = rcgen::Issuer::new(subject("root"), root_key);
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["click.brand.example".to_owned()])
        .expect("a name")
        .signed_by(&key, &issuer)
        .expect("a certificate");
    let chain = |parts: &[&rcgen::Certificate]| parts.iter().map(|part| part.pem()).collect::<String>();
    let key = Zeroizing::new(key.serialize_pem());
    assert!(Record::of(name(), DIRECTORY, key.clone(), &chain(&[&leaf, &root])).is_ok());
    assert_eq!(refused(key.clone(), &chain(&[&leaf, &other])), Damage::OutOfOrder);
    assert_eq!(refused(key, &chain(&[&root, &leaf])), Damage::OutOfOrder);
}

#[test]
fn what_is_imported_may_stand_in_any_order() {
    let record = record();
    let pem = pem_of(record);
    let at = pem.find("-----BEGIN CERTIFICATE-----").expect("a chain");
    let turned = format!("{}{}", &pem[at..], &pem[..at]);
    for text in [pem.as_str(), &turned] {
        let Ok((imported, _)) = Record::imported(text) else { panic!("it is not taken") };
        assert_eq!(imported.name.as_str(), "click.brand.example");
        assert_eq!(pem_of(imported).replace("\r", ""), pem.replace("\r", ""));
    }
    assert_eq!(Record::imported(&pem[at..]).err(), Some(Damage::Key));
    assert_eq!(Record::imported(&pem[..at]).err(), Some(Damage::NoChain));
}

#[test]
fn no_text_shows_a_key() {
    let record = record();
    let secret = record.key.lines().nth(1).expect("a line of Base64").to_owned();
    let mut texts = vec![format!("{record:?}")];
    let bytes = record.encode();
    for length in [10, 100, 300, bytes.len() - 1] {
        let damage = damaged(&bytes[..length]);
        texts.push(format!("{damage} {damage:?}"));
    }
    assert!(texts.iter().all(|text| !text.contains(&secret[..20])), "{texts:?}");
}

fn pem_of(record: Record) -> String {
    let (key, chain) = record.into_pem();
    format!("{}{chain}", *key)
}
