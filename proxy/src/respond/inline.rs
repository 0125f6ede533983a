//! What a page carries inside itself instead of fetching it: escaped text, `data:` addresses, and
//! the hashes by which its security policy knows its own style and script.

use sha2::{Digest, Sha256};
use std::fmt;

/// Text of the configuration as it stands in HTML, in elements and in quoted attributes.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
            let (plain, special) = rest.split_at(at);
            f.write_str(plain)?;
            f.write_str(match special.as_bytes()[0] {
                b'&' => "&amp;",
                b'<' => "&lt;",
                b'>' => "&gt;",
                b'"' => "&quot;",
                _ => "&#39;",
            })?;
            rest = &special[1..];
        }
        f.write_str(rest)
    }
}

/// An address that holds the content itself.
pub(super) fn data_uri(media_type: &str, content: &[u8]) -> String {
    format!("data:{media_type};base64,{}", base64(content))
}

/// The source expression of a security policy that allows exactly `text`.
pub(super) fn policy_hash(text: &str) -> String {
    format!("'sha256-{}'", base64(&Sha256::digest(text)))
}

/// Source text without indentation, line ends and comment lines, so that it can be written for
/// readers and sent small. Statements must end in their own delimiter.
pub(super) fn squeeze(source: &str) -> String {
    source.lines().map(str::trim).filter(|line| !line.starts_with("/*") && !line.starts_with("//")).collect()
}

fn base64(content: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(content.len().div_ceil(3) * 4);
    for chunk in content.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|i| chunk.get(i).copied().map_or(0, u32::from));
        let group = a << 16 | b << 8 | c;
        for place in 0..4 {
            if place <= chunk.len() {
                out.push(char::from(DIGITS[(group >> (18 - 6 * place) & 63) as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_rfc_4648() {
        for (content, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(content.as_bytes()), expected);
        }
        assert_eq!(base64(&[0xff, 0xff, 0xfe]), "///+");
    }

    #[test]
    fn policy_hash_of_a_known_text() {
        // The example of the Content Security Policy Level 3 specification.
        assert_eq!(
            policy_hash("alert('Hello, world.');"),
            "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"
        );
    }

    #[test]
    fn text_cannot_leave_its_place() {
        let text = Escaped(r#"<b>"Tom" & 'Jörg'</b>"#).to_string();
        assert_eq!(text, "&lt;b&gt;&quot;Tom&quot; &amp; &#39;Jörg&#39;&lt;/b&gt;");
    }

    #[test]
    fn squeezes_only_layout() {
        assert_eq!(squeeze("a {\n  /* why */\n  b: c d;\n}\n"), "a {b: c d;}");
    }
}
