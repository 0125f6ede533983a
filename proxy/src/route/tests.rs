//! Tests of whole routes: the dotdigital preset, tokens, the order of routes, hostile paths (H22).

use super::*;
use proptest::prelude::*;

fn preset() -> Routes {
    let raw = presets::routes("dotdigital").expect("preset");
    Routes::new(raw.iter().map(|raw| Route::new(raw).expect("route")).collect())
}

fn route(kind: Kind, path: &str, token: &[&str]) -> Result<Route, Vec<RouteFault>> {
    let token = token.iter().map(|&name| name.to_owned()).collect();
    Route::new(&RawRoute { kind, path: path.into(), token, append: String::new(), manner: Manner::default() })
}

/// Index, kind, token and parameters of a path.
type Shown = (usize, Kind, String, String);

fn shown(routes: &Routes, path: &[u8]) -> Option<Shown> {
    let mut scratch = b"left over".to_vec();
    let found = routes.find(path, &mut scratch)?;
    let mut added = Vec::new();
    found.route.append().write(&found.values, &mut added);
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    Some((found.index, found.route.kind(), text(found.token), text(&added)))
}

fn check(path: &str, expected: Option<(usize, Kind, &str, &str)>) {
    let expected =
        expected.map(|(index, kind, token, added)| (index, kind, token.to_owned(), added.to_owned()));
    assert_eq!(shown(&preset(), path.as_bytes()), expected, "{path}");
}

#[test]
fn dotdigital_is_known() {
    use Kind::{Click, Open};
    let click = "UAA-6RZBM-UWW3JN-3ZFU1J";
    check("/UAA-6RZBM-UWW3JN-3ZFU1J-1/c.aspx", Some((0, Click, click, "dm_i=UAA,6RZBM,UWW3JN,3ZFU1J,1")));
    check("/UAA-6RZBM-UWW3JN/o.gif", Some((1, Open, "UAA-6RZBM-UWW3JN", "")));
    check(
        "/t/UAA-6WFU2-UGAA3A-42YQ72-1/c.aspx",
        Some((2, Click, "UAA-6WFU2-UGAA3A-42YQ72", "dm_t=UAA,6WFU2,UGAA3A,42YQ72,1")),
    );
    check("/t/UAA-6WFU2-UGAA3A/o.gif", Some((3, Open, "UAA-6WFU2-UGAA3A", "")));
    check(
        "/1AAA-2BBB-CC3CC-DD4D-5/c.aspx",
        Some((0, Click, "1AAA-2BBB-CC3CC-DD4D", "dm_i=1AAA,2BBB,CC3CC,DD4D,5")),
    );
}

#[test]
fn what_is_not_dotdigital_is_not_taken_for_it() {
    for path in [
        "/UAA-6RZBM-UWW3JN-3ZFU1J/c.aspx",
        "/UAA-6RZBM-UWW3JN-3ZFU1J-1-2/c.aspx",
        "/UAA-6RZBM-UWW3JN-3ZFU1J-x/c.aspx",
        "/UAA-6RZBM-UWW3JN-3ZFU1J-1/C.aspx",
        "/UAA-6RZBM-UWW3JN-3ZFU1J-1/c.aspx/",
        "/UAA--UWW3JN-3ZFU1J-1/c.aspx",
        "/UAA%2D6RZBM-UWW3JN-3ZFU1J-1/c.aspx",
        "//UAA-6RZBM-UWW3JN-3ZFU1J-1/c.aspx",
        "/T/UAA-6RZBM-UWW3JN-3ZFU1J-1/c.aspx",
        "/UAA-6RZBM-UWW3JN-1/o.gif",
        "/UAA-6RZBM-UWW3JN/uns.aspx",
        "/c.aspx",
        "/t/",
        "/",
        "",
    ] {
        check(path, None);
    }
}

#[test]
fn captures_have_names() {
    let routes = preset();
    let mut scratch = Vec::new();
    let found = routes.find(b"/UAA-6RZBM-UWW3JN/o.gif", &mut scratch).expect("route");
    let captures: Vec<_> = found.captures().collect();
    assert_eq!(captures, [("account", &b"UAA"[..]), ("campaign", b"6RZBM"), ("contact", b"UWW3JN")]);
}

#[test]
fn a_token_is_borrowed_or_joined() {
    let check = |path: &str, token: &[&str], request: &[u8], expected: &str| {
        let routes = Routes::new(vec![route(Kind::Click, path, token).expect("route")]);
        assert_eq!(shown(&routes, request).expect("match").2, expected, "{path}");
        let mut scratch = b"left over".to_vec();
        let borrowed = request
            .as_ptr_range()
            .contains(&routes.find(request, &mut scratch).expect("match").token.as_ptr());
        assert_eq!(borrowed, scratch == b"left over", "{path}");
        borrowed
    };
    assert!(check("/c/{token}", &[], b"/c/a%2Fb", "a%2Fb"));
    assert!(check("/{a}-{b}-{c}/x", &["a", "b"], b"/1-2-3/x", "1-2"));
    assert!(check("/{a}-{b}-{c}/x", &["b", "c"], b"/1-2-3/x", "2-3"));
    assert!(check("/{a}-{b}-{c}/x", &["b"], b"/1-2-3/x", "2"));
    assert!(!check("/{a}-{b}-{c}/x", &["a", "c"], b"/1-2-3/x", "1-3"));
    assert!(!check("/{a}-{b}-{c}/x", &["b", "a"], b"/1-2-3/x", "2-1"));
    assert!(!check("/{a}/{b}/x", &["a", "b"], b"/1/2/x", "1-2"));
}

#[test]
fn faults_come_all_at_once_with_their_keys() {
    let faults = |raw: &RawRoute| {
        let faults = Route::new(raw).expect_err("faults");
        faults.iter().map(|fault| (fault.key(), fault.to_string())).collect::<Vec<_>>()
    };
    let raw = RawRoute {
        kind: Kind::Click,
        path: "/{a}".into(),
        token: vec!["b".into()],
        append: "x={c}".into(),
        manner: Manner::default(),
    };
    assert_eq!(
        faults(&raw),
        [
            ("token", "token names `b`, which the path does not capture".to_owned()),
            ("append", "append uses `c`, which the path does not capture".to_owned()),
        ]
    );
    assert_eq!(
        faults(&RawRoute { path: "a".into(), ..raw }),
        [("path", "a pattern begins with / (at byte 0)".to_owned())]
    );
    let token = |names: &[&str]| route(Kind::Click, "/{a}", names).err();
    assert_eq!(token(&[]), Some(vec![RouteFault::Token(TokenFault::Missing)]));
    assert_eq!(token(&["a", "a"]), Some(vec![RouteFault::Token(TokenFault::Twice("a".into()))]));
}

#[test]
fn the_first_route_wins_and_the_shadowed_are_listed() {
    let own = [("/{token}", Kind::Click), ("/c/{token}", Kind::Click), ("/{token:hex}", Kind::Open)];
    let routes: Vec<_> = own.iter().map(|(path, kind)| route(*kind, path, &[]).expect("route")).collect();
    let routes = Routes::new(routes);
    assert_eq!(routes.shadowed(), [Shadowed { index: 2, by: 0 }]);
    assert_eq!(shown(&routes, b"/0f").map(|found| found.0), Some(0));
    assert_eq!(
        routes.iter().map(|route| route.pattern().to_string()).collect::<Vec<_>>(),
        ["/{token}", "/c/{token}", "/{token:hex}"]
    );
}

proptest! {
    #[test]
    fn any_path_has_a_route_or_none(path in prop::collection::vec(any::<u8>(), 0..200), tail in prop::sample::select(&["", "/c.aspx", "/o.gif"][..])) {
        let path = [&path[..], tail.as_bytes()].concat();
        let _ = shown(&preset(), &path);
    }

    #[test]
    fn any_parts_of_a_click_come_back(parts in prop::collection::vec("[0-9A-Za-z]{1,9}", 4), n in any::<u64>(), test in any::<bool>()) {
        let token = parts.join("-");
        let path = format!("{}/{token}-{n}/c.aspx", if test { "/t" } else { "" });
        let added = format!("{}={},{n}", if test { "dm_t" } else { "dm_i" }, parts.join(","));
        let index = if test { 2 } else { 0 };
        prop_assert_eq!(shown(&preset(), path.as_bytes()), Some((index, Kind::Click, token, added)));
    }
}
