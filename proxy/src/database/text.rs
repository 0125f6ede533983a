//! Bytes from outside as text that every database takes, reversibly.
//!
//! Valid UTF-8 without control characters stays as it is, but for `\`, which becomes `\\`; every
//! other byte becomes `\xHH` with upper-case digits.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Text for a database; [`unescape`] gives the bytes back.
#[must_use]
pub fn escape(bytes: &[u8]) -> Cow<'_, str> {
    // Almost all fields are plain ASCII; without an early end the compiler makes wide compares of it.
    let plain = bytes.iter().fold(true, |plain, &b| plain & (b' '..0x7f).contains(&b) & (b != b'\\'));
    match str::from_utf8(bytes) {
        Ok(text) if plain || !text.chars().any(must_escape) => Cow::Borrowed(text),
        _ => {
            let mut out = String::with_capacity(bytes.len() + 16);
            escape_into(&mut out, bytes);
            Cow::Owned(out)
        }
    }
}

/// The bytes of an escaped text. What [`escape`] would never have written (`\q`, a `\` at the end)
/// stands for itself, so that a text typed by a person means what it says.
#[must_use]
pub fn unescape(text: &str) -> Cow<'_, [u8]> {
    unescape_bytes(text.as_bytes())
}

/// As [`unescape`], for a text column that may not even hold UTF-8.
pub(super) fn unescape_bytes(text: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = text.iter().position(|&b| b == b'\\') else { return Cow::Borrowed(text) };
    let (head, mut rest) = text.split_at(first);
    let mut out = head.to_vec();
    loop {
        rest = match rest {
            [] => return Cow::Owned(out),
            [b'\\', b'\\', tail @ ..] => {
                out.push(b'\\');
                tail
            }
            [b'\\', b'x', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(hex(*high) << 4 | hex(*low));
                tail
            }
            [other, tail @ ..] => {
                out.push(*other);
                tail
            }
        };
    }
}

/// Appends `pairs` as the text of one JSON object with escaped names and values.
pub(super) fn push_object<'a>(out: &mut String, pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
    out.push('{');
    for (index, (name, value)) in pairs.enumerate() {
        if index > 0 {
            out.push(',');
        }
        push_string(out, name);
        out.push(':');
        push_string(out, value);
    }
    out.push('}');
}

/// Appends an address of 4 or 16 bytes; a truncated one reads as its network's address.
pub(super) fn push_address(out: &mut String, address: &[u8]) {
    if let Ok(v4) = <[u8; 4]>::try_from(address) {
        let _ = write!(out, "{}", Ipv4Addr::from(v4));
    } else if let Ok(v6) = <[u8; 16]>::try_from(address) {
        let _ = write!(out, "{}", Ipv6Addr::from(v6));
    }
}

/// A JSON string; after [`escape`] only `\` and `"` are left to be escaped for JSON.
fn push_string(out: &mut String, bytes: &[u8]) {
    let text = escape(bytes);
    out.push('"');
    if text.contains(['\\', '"']) {
        for c in text.chars() {
            if matches!(c, '\\' | '"') {
                out.push('\\');
            }
            out.push(c);
        }
    } else {
        out.push_str(&text);
    }
    out.push('"');
}

fn escape_into(out: &mut String, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                c if c.is_control() => {
                    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                        push_hex(out, byte);
                    }
                }
                c => out.push(c),
            }
        }
        for &byte in chunk.invalid() {
            push_hex(out, byte);
        }
    }
}

fn push_hex(out: &mut String, byte: u8) {
    let _ = write!(out, "\\x{byte:02X}");
}

fn must_escape(c: char) -> bool {
    c == '\\' || c.is_control()
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(bytes: &[u8], text: &str) {
        assert_eq!(escape(bytes), text);
        assert_eq!(unescape(text), bytes);
    }

    #[test]
    fn plain_text_stays_and_the_rest_is_escaped() {
        check(b"", "");
        check(b"UAA-6RZBM~1", "UAA-6RZBM~1");
        check("Grüße 日本".as_bytes(), "Grüße 日本");
        check(b"a\\b", "a\\\\b");
        check(b"a\0\n\x7f", "a\\x00\\x0A\\x7F");
        check(b"\xff\xfe", "\\xFF\\xFE");
        check("\u{85}".as_bytes(), "\\xC2\\x85");
        check(b"\xed\xa0\x80", "\\xED\\xA0\\x80"); // a lone surrogate
        check(b"\\x41", "\\\\x41");
    }

    #[test]
    fn plain_text_is_not_copied() {
        assert!(matches!(escape("Grüße".as_bytes()), Cow::Borrowed(_)));
        assert!(matches!(unescape("Grüße"), Cow::Borrowed(_)));
    }

    #[test]
    fn what_was_never_written_stands_for_itself() {
        for text in ["\\", "\\q", "\\x4", "\\xzz", "end\\"] {
            assert_eq!(unescape(text), text.as_bytes());
        }
        assert_eq!(unescape("\\x4a\\x4A"), &b"JJ"[..]);
    }

    #[test]
    fn captures_become_one_json_object() {
        let pairs: [(&[u8], &[u8]); 3] = [(b"a", b"1"), (b"q\"", b"\\"), (b"n", b"\xff\n")];
        let mut out = String::new();
        push_object(&mut out, pairs.into_iter());
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(value["a"], "1");
        assert_eq!(unescape(value["q\""].as_str().unwrap()), &b"\\"[..]);
        assert_eq!(unescape(value["n"].as_str().unwrap()), &b"\xff\n"[..]);
        let mut empty = String::new();
        push_object(&mut empty, std::iter::empty());
        assert_eq!(empty, "{}");
    }

    #[test]
    fn addresses_read_as_people_write_them() {
        let text = |address: &[u8]| {
            let mut out = String::new();
            push_address(&mut out, address);
            out
        };
        assert_eq!(text(&[192, 0, 2, 0]), "192.0.2.0");
        assert_eq!(text(&[0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), "2001:db8:1::");
        assert_eq!(text(&[]), "");
        assert_eq!(text(&[1, 2, 3]), "");
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let text = escape(&bytes).into_owned();
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert_eq!(unescape(&text).into_owned(), bytes);
        }

        #[test]
        fn different_bytes_give_different_text(a in "[\\\\x0-9a-f\u{1}]{0,8}", b in "[\\\\x0-9a-f\u{1}]{0,8}") {
            prop_assert_eq!(a == b, escape(a.as_bytes()) == escape(b.as_bytes()));
        }
    }
}
