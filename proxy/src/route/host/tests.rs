//! Tests of the spelling of hosts (H10) and of the map of sites.

use super::*;
use proptest::prelude::*;

fn check(raw: &[u8], expected: Result<&str, HostFault>) {
    let mut scratch = Vec::new();
    let found = Host::parse(raw, &mut scratch).map(|host| host.to_string());
    assert_eq!(found, expected.map(str::to_owned), "{}", raw.escape_ascii());
}

#[test]
fn a_host_has_one_spelling() {
    check(b"click.example.com", Ok("click.example.com"));
    check(b"Click.EXAMPLE.com:8080", Ok("click.example.com"));
    check(b"click.example.com.", Ok("click.example.com"));
    check(b"click.example.com.:443", Ok("click.example.com"));
    check(b"click.example.com:", Ok("click.example.com"));
    check(b"xn--mller-kva.example", Ok("xn--mller-kva.example"));
    check(b"a_b.example", Ok("a_b.example"));
    check(b"localhost:1", Ok("localhost"));
    check(b"127.0.0.1:8080", Ok("127.0.0.1"));
    check(b"[::1]", Ok("[::1]"));
    check(b"[2001:DB8:0:0::1]:443", Ok("[2001:db8::1]"));
    check(&b"a.".repeat(127), Ok(&"a.".repeat(127)[..253]));
}

#[test]
fn what_is_no_host_is_refused() {
    check(b"", Err(HostFault::Empty));
    check(b".", Err(HostFault::Label));
    check(b":80", Err(HostFault::Empty));
    check(b"a..b", Err(HostFault::Label));
    check(b"a.com..", Err(HostFault::Label));
    check(b".a.com", Err(HostFault::Label));
    check(b"user@a.com", Err(HostFault::Userinfo));
    check(b"user:pass@a.com", Err(HostFault::Userinfo));
    check(b"a.com, b.com", Err(HostFault::Character(b',')));
    check(b"a.com b.com", Err(HostFault::Character(b' ')));
    check(b"a.com/", Err(HostFault::Character(b'/')));
    check(b"a.com\0", Err(HostFault::Character(0)));
    check(b"a%2ecom", Err(HostFault::Character(b'%')));
    check("müller.example".as_bytes(), Err(HostFault::Character(0xc3)));
    check(b"a.com:80:80", Err(HostFault::Port));
    check(b"a.com:+80", Err(HostFault::Port));
    check(b"a.com:65536", Err(HostFault::Port));
    check(b"[::1", Err(HostFault::Address));
    check(b"[::1]x", Err(HostFault::Address));
    check(b"[fe80::1%25eth0]", Err(HostFault::Address));
    check(b"[127.0.0.1]", Err(HostFault::Address));
    check(b"::1", Err(HostFault::Port));
    check(&[b'a'; 64], Err(HostFault::Label));
    check(&b"a.".repeat(128), Err(HostFault::Long(255)));
}

#[test]
fn patterns_are_read_as_people_write_them() {
    let shown = |text| HostPattern::parse(text).map(|pattern| pattern.to_string());
    assert_eq!(shown("Click.Example.com"), Ok("click.example.com".into()));
    assert_eq!(shown("*.example.com."), Ok("*.example.com".into()));
    assert_eq!(shown("*.Müller.example"), Ok("*.xn--mller-kva.example".into()));
    assert_eq!(shown("[::1]"), Ok("[::1]".into()));
    assert_eq!(shown("a.com:80"), Err(HostPatternFault::PortGiven));
    assert_eq!(shown("[::1]:80"), Err(HostPatternFault::PortGiven));
    assert_eq!(shown("*.[::1]"), Err(HostPatternFault::Wildcard));
    assert_eq!(shown("*"), Err(HostPatternFault::Host(HostFault::Character(b'*'))));
    assert_eq!(shown("a.*.com"), Err(HostPatternFault::Host(HostFault::Character(b'*'))));
    assert_eq!(shown("ü ü"), Err(HostPatternFault::International));
    assert_eq!(shown(""), Err(HostPatternFault::Host(HostFault::Empty)));
}

fn map(patterns: &[&str]) -> HostMap<String> {
    let mut map = HostMap::default();
    for &text in patterns {
        let pattern = HostPattern::parse(text).expect("pattern");
        assert_eq!(map.insert(pattern, text.to_owned()), None);
    }
    map
}

#[test]
fn the_nearest_pattern_wins() {
    let map = map(&["a.example.com", "*.example.com", "*.b.example.com", "[::1]"]);
    let find = |raw: &str| map.find(Host::parse(raw.as_bytes(), &mut Vec::new()).expect("host")).cloned();
    assert_eq!(find("A.example.com:80").as_deref(), Some("a.example.com"));
    assert_eq!(find("c.example.com").as_deref(), Some("*.example.com"));
    assert_eq!(find("x.y.example.com").as_deref(), Some("*.example.com"));
    assert_eq!(find("x.b.example.com").as_deref(), Some("*.b.example.com"));
    assert_eq!(find("b.example.com").as_deref(), Some("*.example.com"));
    assert_eq!(find("example.com"), None);
    assert_eq!(find("xexample.com"), None);
    assert_eq!(find("com"), None);
    assert_eq!(find("[0::1]").as_deref(), Some("[::1]"));
}

#[test]
fn a_pattern_given_twice_is_told() {
    let mut map = map(&["a.com", "*.a.com"]);
    assert_eq!(
        map.insert(HostPattern::parse("A.com.").expect("pattern"), "x".into()).as_deref(),
        Some("a.com")
    );
    assert_eq!((map.len(), map.is_empty()), (2, false));
}

proptest! {
    #[test]
    fn any_bytes_are_a_host_or_not(raw in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = Host::parse(&raw, &mut Vec::new());
    }

    #[test]
    fn a_host_is_its_own_spelling(raw in "[a-zA-Z0-9._:\\[\\]-]{0,40}") {
        let mut scratch = Vec::new();
        if let Ok(host) = Host::parse(raw.as_bytes(), &mut scratch) {
            let mut again = Vec::new();
            prop_assert_eq!(Host::parse(host.as_bytes(), &mut again), Ok(host));
        }
    }
}
