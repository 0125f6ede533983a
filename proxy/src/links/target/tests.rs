//! What is approved, what is refused, and what `append` leaves untouched.

use proptest::prelude::*;

use super::*;

#[track_caller]
fn check(raw: &str, expected: Result<&str, Refused>) {
    let got = approve(raw);
    assert_eq!(got.as_ref().map(Approved::as_str).map_err(|refused| *refused), expected, "{raw:?}");
}

#[track_caller]
fn check_repaired(raw: &str, expected: &str) {
    check(raw, Ok(expected));
    assert!(approve(raw).unwrap().repaired(), "{raw:?}");
}

#[track_caller]
fn check_same(raw: &str) {
    check(raw, Ok(raw));
    assert!(!approve(raw).unwrap().repaired(), "{raw:?}");
}

#[test]
fn plain_targets_stay_byte_for_byte() {
    for raw in [
        "https://example.com/",
        "http://example.com:8080/a/b;c=d?x=1&y=%20#frag?not=query",
        "https://example.com/?",
        "https://example.com/#",
        "https://192.0.2.1/path",
        "https://[2001:db8::1]:8443/path",
        "https://my_host.example.com/",
        "https://example.com./",
        "https://xn--bcher-kva.example/",
        "https://example.com/%0d%0aSet-Cookie:%20a=b",
        "https://example.com/%250d%250a",
        "https://example.com/%c0%af%zz",
        "https://example.com/go?to=https://user:pw@other.example/",
        "https://example.com/user@name",
    ] {
        check_same(raw);
    }
}

#[test]
fn spelling_is_normalised_without_being_called_a_repair() {
    for (raw, approved) in [
        ("HTTPS://Example.COM", "https://example.com/"),
        ("https://example.com:443/a/../b/./c", "https://example.com/b/c"),
        ("http://example.com:80?x", "http://example.com/?x"),
        ("https://0x7f.1/", "https://127.0.0.1/"),
        ("https://[2001:DB8:0:0::1]/", "https://[2001:db8::1]/"),
    ] {
        check(raw, Ok(approved));
        assert!(!approve(raw).unwrap().repaired(), "{raw:?}");
    }
}

#[test]
fn what_people_write_is_repaired() {
    check_repaired("  https://example.com/a b ", "https://example.com/a%20b");
    check_repaired("https://example.com/größe?q=ü#ß", "https://example.com/gr%C3%B6%C3%9Fe?q=%C3%BC#%C3%9F");
    check_repaired("https://bücher.example/", "https://xn--bcher-kva.example/");
    check_repaired("https://例え.jp/", "https://xn--r8jz45g.jp/");
    check_repaired("https://example.com/?path=C:\\a#\\b", "https://example.com/?path=C:%5Ca#%5Cb");
    check_repaired("https://example.com/?a=b c", "https://example.com/?a=b%20c");
}

#[test]
fn other_schemes_are_refused() {
    for raw in [
        "",
        " ",
        "javascript:alert(1)",
        "JavaScript://example.com/%0aalert(1)",
        "data:text/html,<script>",
        "//example.com/",
        "/path",
        "example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https:example.com",
        "https:/example.com",
        "mailto:a@example.com",
        "ht%74p://example.com/",
        "https\u{ff1a}//example.com/",
    ] {
        check(raw, Err(Refused::Scheme));
    }
}

#[test]
fn origins_that_can_be_read_in_two_ways_are_refused() {
    for (raw, refused) in [
        ("https:///example.com/", Refused::Host),
        ("https://", Refused::Host),
        ("https://?x", Refused::Host),
        ("https://#x", Refused::Host),
        ("https://a..b/", Refused::Host),
        ("https://ex!ample.com/", Refused::Host),
        ("https://user@example.com/", Refused::UserInformation),
        ("https://user:password@example.com/", Refused::UserInformation),
        ("https://@example.com/", Refused::UserInformation),
        ("https://example.com:pw@other.example/", Refused::UserInformation),
        ("https://good.example\\@evil.example/", Refused::Backslash),
        ("https:\\\\example.com/", Refused::Scheme),
        ("https://\\example.com/", Refused::Backslash),
        ("https://example.com/\\other.example", Refused::Backslash),
    ] {
        check(raw, Err(refused));
    }
}

#[test]
fn control_characters_are_refused_wherever_they_stand() {
    for control in (0u8..0x20).chain([0x7f]).map(char::from).chain(['\u{80}', '\u{85}', '\u{9f}']) {
        for at in 0..="https://example.com/?q#f".len() {
            let mut raw = "https://example.com/?q#f".to_owned();
            raw.insert(at, control);
            check(&raw, Err(Refused::Control));
        }
    }
}

#[test]
fn malformed_hosts_and_ports_are_refused() {
    for raw in [
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "https://example.com:99999/",
        "https://example.com:port/",
        "https://exa mple.com/",
        "https://example%00.com/",
        "https://user\u{ff20}example.com/",
        "https://1.2.3.4.5/",
        "https://256.1.1.1/",
    ] {
        assert!(matches!(approve(raw), Err(Refused::Malformed(_))), "{raw:?}: {:?}", approve(raw));
    }
}

#[test]
fn length_is_bounded_before_and_after_the_repair() {
    let of_length = |bytes: usize| format!("https://example.com/{}", "a".repeat(bytes - 20));
    check_same(&of_length(TARGET_BYTES_MAX));
    check(&of_length(TARGET_BYTES_MAX + 1), Err(Refused::TooLong { bytes: TARGET_BYTES_MAX + 1 }));
    check(&of_length(65_536), Err(Refused::TooLong { bytes: 65_536 }));
    let umlauts = format!("https://example.com/{}", "ü".repeat(3000));
    check(&umlauts, Err(Refused::TooLong { bytes: 20 + 3000 * 6 }));
}

/// Every byte at every position of a target: what comes out is approved, or nothing does (H11).
#[test]
fn any_byte_at_any_position_gives_a_plain_target_or_none() {
    let whole = "https://example.com:8080/path?query=1#fragment";
    for byte in 0..=255u8 {
        for at in 0..=whole.len() {
            let mut raw = whole.to_owned();
            raw.insert(at, char::from(byte));
            if let Ok(approved) = approve(&raw) {
                check_invariants(&approved);
            }
        }
    }
}

#[track_caller]
fn check_invariants(approved: &Approved) {
    let text = approved.as_str();
    assert!(text.len() <= TARGET_BYTES_MAX);
    assert!(text.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b'\\'), "{text:?}");
    assert!(http::HeaderValue::from_bytes(text.as_bytes()).is_ok(), "{text:?}");
    let url = Url::parse(text).unwrap();
    assert_eq!(url.as_str(), text);
    assert!(matches!(url.scheme(), "http" | "https"));
    assert!(url.has_host() && url.username().is_empty() && url.password().is_none());
    let again = approve(text).unwrap();
    assert_eq!(again.as_str(), text);
    assert!(!again.repaired());
}

fn append(raw: &str, params: &[u8]) -> String {
    let approved = approve(raw).unwrap();
    let mut out = Vec::new();
    approved.target().append(&mut out, |out| out.extend_from_slice(params));
    String::from_utf8(out).unwrap()
}

#[test]
fn parameters_stand_behind_the_query_and_before_the_fragment() {
    for (raw, expected) in [
        ("https://example.com/", "https://example.com/?p=1"),
        ("https://example.com/?", "https://example.com/?p=1"),
        ("https://example.com/?a=b", "https://example.com/?a=b&p=1"),
        ("https://example.com/?a=b&", "https://example.com/?a=b&p=1"),
        ("https://example.com/?a=b#f", "https://example.com/?a=b&p=1#f"),
        ("https://example.com/#f", "https://example.com/?p=1#f"),
        ("https://example.com/#", "https://example.com/?p=1#"),
        ("https://example.com/#/app?x=1", "https://example.com/?p=1#/app?x=1"),
        ("https://example.com/?#", "https://example.com/?p=1#"),
        ("https://example.com/?a=b?", "https://example.com/?a=b?&p=1"),
    ] {
        assert_eq!(append(raw, b"p=1"), expected);
        assert_eq!(append(raw, b""), raw);
    }
}

#[test]
fn parameters_cannot_leave_the_query() {
    assert_eq!(
        append("https://example.com/#f", b"a=#x\r\nb: c\\\"<>'\xff\0 %41"),
        "https://example.com/?a=%23x%0D%0Ab:%20c%5C%22%3C%3E%27%FF%00%20%41#f"
    );
}

proptest! {
    #[test]
    fn whatever_is_approved_holds_the_invariants(raw in "\\PC{0,60}", host in "[a-z0-9.@:\\\\/ü]{1,12}") {
        for raw in [raw.clone(), format!("https://{host}{raw}"), format!("http://example.com/{raw}")] {
            if let Ok(approved) = approve(&raw) {
                check_invariants(&approved);
            }
        }
    }

    #[test]
    fn append_keeps_all_parts_of_the_target(
        path in "[ -~ü]{0,20}", query in "(\\?[ -~]{0,12})?", fragment in "(#[ -~]{0,12})?",
        params in proptest::collection::vec(any::<u8>(), 1..40),
    ) {
        let Ok(approved) = approve(&format!("https://example.com/{path}{query}{fragment}")) else { return Ok(()) };
        let before = Url::parse(approved.as_str()).unwrap();
        let mut out = Vec::new();
        approved.target().append(&mut out, |out| out.extend_from_slice(&params));
        let text = String::from_utf8(out).unwrap();
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'));
        let after = Url::parse(&text).unwrap();
        prop_assert_eq!(after.as_str(), &text);
        prop_assert_eq!(after.origin(), before.origin());
        prop_assert_eq!(after.path(), before.path());
        prop_assert_eq!(after.fragment(), before.fragment());
        prop_assert!(after.query().unwrap().starts_with(before.query().unwrap_or("")));
    }
}
