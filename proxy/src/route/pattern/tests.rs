//! Tests of patterns: what they take, what they refuse, and what one of them covers.

use super::*;
use proptest::prelude::*;

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"))
}

fn check(text: &str, path: &[u8], expected: Option<&[&[u8]]>) {
    let pattern = pattern(text);
    let values = pattern.matches(path).map(|values| values.iter().collect::<Vec<_>>());
    assert_eq!(values.as_deref(), expected, "{text} and {}", path.escape_ascii());
}

fn refuses(text: &str, at: usize, flaw: Flaw) {
    assert_eq!(Pattern::parse(text).err(), Some(PatternFault { at, flaw }), "{text}");
}

#[test]
fn typed_captures_take_the_longest_run() {
    check("/{a:alnum}-{n:int}/c", b"/Ab9-12/c", Some(&[b"Ab9", b"12"]));
    check("/{a:alnum}-{n:int}/c", b"/Ab9-1x/c", None);
    check("/{a:alnum}-{n:int}/c", b"/-1/c", None);
    check("/{a:alnum}-{n:int}/c", b"/a-/c", None);
    check("/{h:hex}.{x:alnum}", b"/0aF.zZ", Some(&[b"0aF", b"zZ"]));
    check("/{h:hex}.{x:alnum}", b"/0ag.zZ", None);
    check(
        "/{u:uuid}/x",
        b"/00000000-aBcd-4000-8000-0123456789ab/x",
        Some(&[b"00000000-aBcd-4000-8000-0123456789ab"]),
    );
    check("/{u:uuid}/x", b"/00000000-abcd-4000-8000_0123456789ab/x", None);
    check("/{u:uuid}", b"/00000000-abcd-4000-8000-0123456789abc", None);
    check(
        "/{u:uuid}c",
        b"/00000000-abcd-4000-8000-0123456789abc",
        Some(&[b"00000000-abcd-4000-8000-0123456789ab"]),
    );
    check("/{r:rest}", b"/a/b//\xff", Some(&[b"a/b//\xff"]));
    check("/{r:rest}", b"/", None);
}

#[test]
fn untyped_captures_end_where_their_literal_first_occurs() {
    check("/c/{t}", b"/c/a%2Fb+~=,;\xff\0", Some(&[b"a%2Fb+~=,;\xff\0"]));
    check("/c/{t}", b"/c/a/b", None);
    check("/c/{t}", b"/c/", None);
    check("/{a}-{b}/", b"/x-y-z/", Some(&[b"x", b"y-z"]));
    check("/{a}-{b}/", b"/--y/", Some(&[b"-", b"y"]));
    check("/{a}--{b}/", b"/x-y--z/", Some(&[b"x-y", b"z"]));
    check("/{a}-{b}/", b"/x/-y/", None);
    check("/{a}.x/{b}", b"/q.y.x/r", Some(&[b"q.y", b"r"]));
    check("/{a}.x/{b}", b"/.x/r", None);
    check("/{a}.gif", b"/q.gif.gif", Some(&[b"q.gif"]));
    check("/{a}.gif", b"/a/q.gif", None);
    check("/{a}.gif", b"/.gif", None);
}

#[test]
fn a_path_has_one_form_only() {
    check("/c/x", b"/c/x", Some(&[]));
    for other in [
        &b"//c/x"[..],
        b"/C/x",
        b"/c/./x",
        b"/c/x/",
        b"/%63/x",
        b"/c//x",
        b"/c/x;v=1",
        b"/c/x\0",
        b"",
        b"c/x",
    ] {
        check("/c/x", other, None);
    }
    check("/{a}/x", b"/../x", Some(&[b".."]));
    check("/{a}/x", b"/%2e%2e%2Fq/x", Some(&[b"%2e%2e%2Fq"]));
}

#[test]
fn a_path_too_long_to_measure_matches_nothing() {
    let fits = [b"/", &[b'a'; 65_534][..]].concat();
    check("/{t}", &fits, Some(&[fits.get(1..).expect("bytes")]));
    check("/{t}", &[&fits[..], b"a"].concat(), None);
}

#[test]
fn faults_name_their_place() {
    refuses("c/{t}", 0, Flaw::Relative);
    refuses("", 0, Flaw::Relative);
    refuses("/{t", 1, Flaw::Unclosed);
    refuses("/x}{t}", 2, Flaw::Stray);
    refuses("/{t}}", 4, Flaw::Stray);
    refuses("/{}", 1, Flaw::Name(String::new()));
    refuses("/{T}", 1, Flaw::Name("T".into()));
    refuses("/{a{b}}", 1, Flaw::Name("a{b".into()));
    refuses("/{t:word}", 1, Flaw::Type("word".into()));
    refuses("/{t}-{t}", 5, Flaw::Twice("t".into()));
    refuses("/{a}{b}", 4, Flaw::Adjacent);
    refuses("/{a:rest}/x", 9, Flaw::AfterRest);
    refuses("/{a:rest}{b}", 9, Flaw::AfterRest);
    refuses("/c?x={t}", 2, Flaw::Byte(b'?'));
    refuses("/{t}#x", 4, Flaw::Byte(b'#'));
    refuses("/a b", 2, Flaw::Byte(b' '));
    refuses("/ü", 1, Flaw::Byte(0xc3));
    refuses("/{n:int}5", 8, Flaw::Swallowed(b'5'));
    refuses("/{a:alnum}x-{b}", 10, Flaw::Swallowed(b'x'));
    let many: String = (0..17).map(|n| format!("/{{a{n}}}")).collect();
    refuses(&many, 87, Flaw::Many);
    refuses(&format!("/{}", "a".repeat(1024)), 0, Flaw::Long(1025));
    assert_eq!(
        PatternFault { at: 8, flaw: Flaw::Swallowed(b'5') }.to_string(),
        "can never match: the capture before `5` takes that byte, too (at byte 8)"
    );
}

#[test]
fn covering_is_found_where_it_is_certain() {
    let covers = |first: &str, other: &str, expected: bool| {
        assert_eq!(pattern(first).covers(&pattern(other)), expected, "{first} over {other}");
    };
    covers("/{a}", "/{b:alnum}", true);
    covers("/{b:alnum}", "/{a}", false);
    covers("/{a:alnum}-{b:alnum}/c", "/{a:hex}-{n:int}/c", true);
    covers("/{a:hex}-{b:alnum}/c", "/{a:alnum}-{n:int}/c", false);
    covers("/{a:alnum}", "/t{b:int}", true);
    covers("/t{b:int}", "/t5", true);
    covers("/{a:rest}", "/x/{b}/{c:rest}", true);
    covers("/{a}/{b}", "/{c}/{d}", true);
    covers("/{a}-{b}/x", "/{c:alnum}-{d:alnum}-{e}/x", true);
    covers("/{a}-{b}/x", "/{c}-{d}/x", false); // true, but c may hold hyphens: the way depends on bytes
    covers("/{a}.gif", "/{b:alnum}/o.gif", false);
    covers("/{a}.gif", "/{b:alnum}.{c:alnum}.gif", true);
    covers("/{a}.x/{b}", "/q.x/r", true);
    covers("/{u:uuid}", "/{v:uuid}", true);
    covers("/{a}", "/{v:uuid}", true);
    covers("/{a:alnum}-{b}", "/{v:uuid}", true);
    covers("/{u:uuid}", "/{v:hex}", false);
    covers("/c/{t}", "/o/{t}", false);
    covers("/{a:int}x", "/{a:hex}x", false);
    covers("/{a}-{b}", "/{a}", false);
}

/// The bytes of a path that leads through all branches of a matcher.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        prop::sample::select(&["/", "-", ".gif", "/c.aspx", "a", "7", "%2F", "--", ".x/"][..])
            .prop_map(|piece| piece.as_bytes().to_vec()),
        Just(b"00000000-abcd-4000-8000-0123456789ab".to_vec()),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| [b"/".to_vec(), pieces.concat()].concat())
}

const UNTYPED: &str = "";
const TYPED: [&str; 4] = [":alnum", ":hex", ":int", ":uuid"];
const LITERALS: [&str; 8] = ["-", "/", ".gif", "--", "/c.aspx", ".x/", "a-", "7/"];

/// Patterns out of all captures and literals that go together, with one of the tails.
fn patterns(
    classes: &[&str],
    literals: &[&str],
    tails: &'static [&str],
) -> impl Strategy<Value = Pattern> + use<> {
    let pairs = classes.iter().flat_map(|class| literals.iter().map(move |literal| (*class, *literal)));
    let fits = |(class, literal): &(&str, &str)| Pattern::parse(&format!("/{{a{class}}}{literal}")).is_ok();
    let steps: Vec<_> = pairs.filter(fits).map(|(class, literal)| format!("{class}}}{literal}")).collect();
    let steps = prop::collection::vec(prop::sample::select(steps), 0..4);
    (steps, prop::sample::select(tails)).prop_map(|(steps, tail)| {
        let steps = steps.iter().enumerate().map(|(nth, step)| format!("{{a{nth}{step}")).collect::<String>();
        pattern(&format!("/{steps}{tail}"))
    })
}

fn all_patterns() -> impl Strategy<Value = Pattern> {
    let classes: Vec<_> = TYPED.into_iter().chain([UNTYPED]).collect();
    patterns(&classes, &LITERALS, &["", "{z}", "{z:rest}"])
}

/// Few pieces, so that patterns often cover each other.
fn near_patterns() -> impl Strategy<Value = Pattern> {
    patterns(&[UNTYPED, ":alnum", ":int"], &["-", "/", "-/"], &["", "{z}", "{z:rest}"])
}

/// A path of a pattern: each capture filled with bytes of its type.
fn path_of(pattern: &Pattern, fill: &[Vec<u8>]) -> Vec<u8> {
    let mut path = pattern.prefix.to_vec();
    for (step, fill) in pattern.steps.iter().zip(fill) {
        let class: fn(&u8) -> bool = match step.takes {
            Takes::Alnum => u8::is_ascii_alphanumeric,
            Takes::Hex => u8::is_ascii_hexdigit,
            Takes::Int => u8::is_ascii_digit,
            Takes::Rest => |_| true,
            Takes::Segment(_) => |byte| *byte != b'/',
            Takes::Uuid => |_| false,
        };
        if matches!(step.takes, Takes::Uuid) {
            path.extend_from_slice(b"12345678-90ab-cdef-ABCD-EF1234567890");
        } else {
            let filled = path.len();
            path.extend(fill.iter().filter(|byte| class(byte)));
            if path.len() == filled {
                path.push(b'0');
            }
        }
        path.extend_from_slice(&step.literal);
    }
    path
}

fn fills() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(&b"-/.a7gifx0"[..])];
    prop::collection::vec(prop::collection::vec(byte, 0..6), 6)
}

proptest! {
    #[test]
    fn any_text_is_a_pattern_or_a_fault(text in "[/{}:a-z0-9é -]{0,40}") {
        if let Err(fault) = Pattern::parse(&text) {
            prop_assert!(fault.at <= text.len(), "{fault}");
        }
    }

    #[test]
    fn a_matched_path_is_its_pieces(pattern in all_patterns(), path in hostile(), fill in fills()) {
        for path in [path, path_of(&pattern, &fill)] {
            let Some(values) = pattern.matches(&path) else { continue };
            let mut again = pattern.prefix.to_vec();
            for (value, step) in values.iter().zip(&pattern.steps) {
                prop_assert!(!value.is_empty());
                again.extend_from_slice(value);
                again.extend_from_slice(&step.literal);
            }
            prop_assert_eq!(again, path);
        }
    }

    #[test]
    fn typed_patterns_match_all_their_paths(pattern in patterns(&TYPED, &LITERALS, &["", "{z:rest}"]), fill in fills()) {
        prop_assert!(pattern.matches(&path_of(&pattern, &fill)).is_some());
    }

    #[test]
    fn what_is_covered_is_matched(first in near_patterns(), other in near_patterns(), fill in fills()) {
        let untyped = first.steps.iter().any(|step| matches!(step.takes, Takes::Segment(_)));
        prop_assert!(first.covers(&first) || untyped, "{first} over itself");
        let path = path_of(&other, &fill);
        if first.covers(&other) && other.matches(&path).is_some() {
            prop_assert!(first.matches(&path).is_some(), "{first} over {other}: {}", path.escape_ascii());
        }
    }
}
