//! Keeps the floor plan and the house rules: each rule is one test over the text of all sources.
//!
//! The rules are data at the top. Each scanner is a plain function, shown a planted violation in
//! `a_planted_violation_is_found`, so that a rule which finds nothing is known to have looked.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The floor plan: a module of `proxy/src` imports only modules that stand in an earlier row.
///
/// Finer than the design's where two modules of one of its floors build on each other: metrics are
/// labelled with the words of `event`, and `follow` answers the look-ups that `resolve` asks for.
const FLOORS: &[&[&str]] = &[
    &["event"],
    &["causes", "clock", "metrics"],
    &["route", "journal", "database"],
    &["links", "policy", "copies"],
    &["vitals", "resolve", "record", "forward"],
    &["follow"],
    &["respond", "hold", "readiness"],
    &["front", "deliver"],
    &["admin"],
    &["config"],
    &["app"],
    &["cli"],
    &["lib", "main"],
];

/// Files that may hold `unsafe`, each with its reason.
const UNSAFE_FILES: &[(&str, &str)] = &[];

/// Files that may read the clock; everything else takes `now`.
const CLOCK_FILES: &[&str] = &[
    "app/control.rs",
    "app/sink.rs",
    "clock.rs",
    "database/sqlite/deadline.rs",
    "front/core.rs",
    "front/prove.rs",
    "front/serve.rs",
    "journal/committer.rs",
    "record.rs",
];

/// The one place where threads begin.
const THREAD_FILES: &[&str] = &["app.rs", "app/"];

/// Files and folders that decide: no waiting, no input or output, no global state.
const PURE_FILES: &[&str] = &[
    "event.rs",
    "front/decide.rs",
    "journal/frame.rs",
    "journal/segment.rs",
    "links/builder.rs",
    "links/builder/",
    "links/entry.rs",
    "links/guard.rs",
    "links/overlay.rs",
    "links/pool.rs",
    "links/record.rs",
    "links/table.rs",
    "links/target.rs",
    "policy.rs",
    "policy/",
    "respond.rs",
    "respond/",
    "route.rs",
    "route/",
];

const CLOCK_READS: &[&str] = &["SystemTime::now", "Instant::now", "Timestamp::now", "Zoned::now"];
const THREAD_STARTS: &[&str] = &["thread::spawn", "thread::Builder", "thread::scope"];
const IMPURITIES: &[&str] = &[
    "async ",
    ".await",
    "tokio::",
    "rustix::",
    "fs::",
    "File::",
    "TcpStream",
    "UdpSocket",
    "env::var",
    "process::",
    "thread::",
    "thread_local!",
    "static mut",
    "OnceLock",
    "LazyLock",
];
const LEFTOVERS: &[&str] = &["todo!", "dbg!", "TODO", "FIXME", "XXX", "unimplemented!"];

const MAIN_LINES_MAX: usize = 80;

#[test]
fn modules_import_only_lower_floors() {
    check(&proxy_sources(), upward_imports);
}

#[test]
fn every_module_has_a_place_in_the_floor_plan() {
    check(&proxy_sources(), |source| match floor(source.module()) {
        Some(_) => vec![],
        None => vec![format!("`{}` is not in the floor plan of proxy/tests/tidy.rs", source.module())],
    });
}

#[test]
fn every_file_begins_by_saying_its_job() {
    check(&all_sources(), missing_job);
}

#[test]
fn unsafe_stays_in_its_named_files() {
    check(&all_sources(), |source| {
        if UNSAFE_FILES.iter().any(|(file, _)| source.path == *file) { vec![] } else { unsafe_code(source) }
    });
}

#[test]
fn no_file_is_called_mod() {
    check(&all_sources(), |source| match source.path.ends_with("mod.rs") {
        true => vec!["a module with children is `x.rs` beside `x/`".to_owned()],
        false => vec![],
    });
}

#[test]
fn the_clock_is_read_in_named_files_only() {
    check(
        &proxy_sources(),
        |source| if source.is_in(CLOCK_FILES) { vec![] } else { found(source, CLOCK_READS) },
    );
}

#[test]
fn files_named_as_clock_readers_read_it() {
    for file in CLOCK_FILES {
        let reads = proxy_sources()
            .iter()
            .any(|source| source.is_in(&[file]) && !found(source, CLOCK_READS).is_empty());
        assert!(reads, "{file} does not read the clock: take it off the list");
    }
}

#[test]
fn only_app_starts_threads() {
    check(
        &proxy_sources(),
        |source| if source.is_in(THREAD_FILES) { vec![] } else { found(source, THREAD_STARTS) },
    );
}

#[test]
fn deciders_neither_wait_nor_touch_the_world() {
    check(
        &proxy_sources(),
        |source| if source.is_in(PURE_FILES) { found(source, IMPURITIES) } else { vec![] },
    );
}

#[test]
fn lists_name_what_exists() {
    let sources = proxy_sources();
    for file in [CLOCK_FILES, PURE_FILES].concat() {
        assert!(
            sources.iter().any(|source| source.is_in(&[file])),
            "{file} does not exist: take it off the list"
        );
    }
}

#[test]
fn nothing_is_left_to_do() {
    check(&all_sources(), leftovers);
}

#[test]
fn main_is_short() {
    check(&proxy_sources(), |source| {
        let lines = source.text.lines().count();
        if source.path == "main.rs" && lines > MAIN_LINES_MAX {
            vec![format!("{lines} lines, at most {MAIN_LINES_MAX}: settings, build, run, exit code")]
        } else {
            vec![]
        }
    });
}

#[test]
fn a_planted_violation_is_found() {
    let at = |path: &str, text: &str| Source::new(path, text);
    let upward = |path: &str, text: &str| upward_imports(&at(path, text)).len();

    assert_eq!(upward("route.rs", "use crate::links::Table;"), 1, "upward");
    assert_eq!(upward("route/pattern.rs", "fn f() { crate::journal::open() }"), 1, "sideways");
    assert_eq!(
        upward("route.rs", "use crate::{\n    event::{Kind, self},\n    app::{A, B}, config};"),
        2,
        "in a group"
    );
    assert_eq!(upward("route.rs", "use super::config::Config;"), 1, "by super");
    assert_eq!(upward("route/pattern.rs", "use super::super::config::Config;"), 1, "by super twice");
    assert_eq!(upward("main.rs", "use holdfast::app;"), 0, "downward");
    assert_eq!(upward("route.rs", "use crate::{event::Kind, route::Pattern};"), 0, "downward and own");
    assert_eq!(
        upward("route.rs", "// crate::app\nconst A: &str = \"crate::app\"; /* crate::cli */"),
        0,
        "no code"
    );
    assert_eq!(
        upward("route.rs", "pub(crate) fn f() { r#\"crate::app\"#; '\"'; crate::cli::g() }"),
        1,
        "after strings"
    );

    assert_eq!(missing_job(&at("a.rs", "use std::fmt;\n")).len(), 1);
    assert_eq!(missing_job(&at("a.rs", "//! half a title\n")).len(), 1);
    assert_eq!(missing_job(&at("a.rs", "//! Does one thing,\n//! and says so.\n//!\n//! More\n")).len(), 0);

    assert_eq!(unsafe_code(&at("a.rs", "fn f() { unsafe { g() } }")).len(), 1);
    assert_eq!(unsafe_code(&at("a.rs", "#![forbid(unsafe_code)] // unsafe\n")).len(), 0);

    assert_eq!(found(&at("a.rs", "let now = std::time::Instant::now();"), CLOCK_READS).len(), 1);
    assert_eq!(found(&at("a.rs", "#[cfg(test)]\nmod tests { Instant::now() }"), CLOCK_READS).len(), 0);
    assert_eq!(found(&at("a.rs", "std::thread::Builder::new()"), THREAD_STARTS).len(), 1);
    assert_eq!(found(&at("a.rs", "pub async fn f() { g().await }"), IMPURITIES).len(), 2);
    assert_eq!(leftovers(&at("a.rs", "// TODO: later\nfn f() { todo!() }")).len(), 2);

    assert!(at("route/pattern.rs", "").is_in(&["route/"]) && !at("route.rs", "").is_in(&["route/"]));
}

/// One source file.
struct Source {
    /// Relative to its crate's `src` for the proxy, to the repository for all others.
    path: String,
    text: String,
    /// The text with comments, strings and characters blanked, line for line.
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: blanked(text) }
    }

    /// The top-level module that the file belongs to.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or(&self.path);
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Whether the file is one of `files`, or lies in a folder (named with `/`) of them.
    fn is_in(&self, files: &[&str]) -> bool {
        files.iter().any(|file| self.path == *file || file.ends_with('/') && self.path.starts_with(file))
    }

    /// The code without tests, which stand last in a file or in a file of their own.
    fn code_in_use(&self) -> &str {
        if self.path.ends_with("tests.rs") || self.path.contains("/tests/") {
            return "";
        }
        let tests = self.code.find("#[cfg(test)]\nmod ").unwrap_or(self.code.len());
        &self.code[..tests]
    }
}

#[track_caller]
fn check(sources: &[Source], faults_of: impl Fn(&Source) -> Vec<String>) {
    assert!(!sources.is_empty(), "no sources found");
    let mut report = String::new();
    for source in sources {
        for fault in faults_of(source) {
            let _ = write!(report, "\n{}: {fault}", source.path);
        }
    }
    assert!(report.is_empty(), "{report}");
}

fn proxy_sources() -> Vec<Source> {
    sources_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "src")
}

/// Every source file of the repository but this one, which names what it forbids.
fn all_sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut sources = sources_below(&root.join("proxy/src"), "proxy/src");
    for folder in ["proxy/tests", "proxy/benches", "certs", "bench", "fuzz"] {
        let own = sources_below(&root.join(folder), folder);
        sources.extend(own.into_iter().filter(|source| source.path != "tidy.rs").map(|mut source| {
            source.path = format!("{folder}/{}", source.path);
            source
        }));
    }
    sources
}

fn sources_below(folder: &Path, name: &str) -> Vec<Source> {
    let mut files = Vec::new();
    walk(folder, &mut files);
    files.sort();
    files
        .iter()
        .map(|file| {
            let text = fs::read_to_string(file)
                .unwrap_or_else(|error| panic!("{name}: {}: {error}", file.display()));
            let path = file.strip_prefix(folder).expect("found below it").to_string_lossy().into_owned();
            Source::new(&path, &text)
        })
        .collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    // A folder that is not there has no sources; `check` fails when none has any.
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.expect("an entry of a readable folder").path()) {
        if path.is_dir() && !path.ends_with("target") {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

fn upward_imports(source: &Source) -> Vec<String> {
    let own = source.module();
    let own_floor = floor(own);
    let mut faults = Vec::new();
    for import in imports(source) {
        let Some(import_floor) = floor(&import) else { continue };
        if import != own && own_floor.is_some_and(|own_floor| import_floor >= own_floor) {
            faults.push(format!("imports `{import}`, which does not lie below `{own}`"));
        }
    }
    faults
}

/// The first name of every path that starts at the crate's root.
fn imports(source: &Source) -> Vec<String> {
    // From `x.rs` the root is `super`, from `x/y.rs` it is `super::super`.
    let to_root = "super::".repeat(source.path.split('/').count());
    let mut names = Vec::new();
    for root in ["crate::", "holdfast::", &to_root] {
        for (at, _) in source.code.match_indices(root) {
            let before = source.code[..at].chars().next_back();
            let starts_here = !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':');
            if starts_here {
                names.extend(first_names(&source.code[at + root.len()..]));
            }
        }
    }
    names
}

/// `a` of `a::b`; `a` and `c` of `{a::{b}, c}`.
fn first_names(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else {
        return vec![leading_name(path)];
    };
    let mut names = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' => {
                names.push(leading_name(&group[start..at]));
                break;
            }
            ',' if depth == 0 => {
                names.push(leading_name(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

fn leading_name(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn missing_job(source: &Source) -> Vec<String> {
    let paragraph: Vec<&str> = source.text.lines().map_while(|line| line.strip_prefix("//! ")).collect();
    match paragraph.last() {
        None => vec!["the first line is not `//! ` and the file's job".to_owned()],
        Some(last) if last.ends_with(['.', ':']) => vec![],
        Some(_) => vec!["the file's job is not a full sentence".to_owned()],
    }
}

fn unsafe_code(source: &Source) -> Vec<String> {
    let words = source.code.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.filter(|word| *word == "unsafe").map(|_| "`unsafe` outside its named files".to_owned()).collect()
}

fn leftovers(source: &Source) -> Vec<String> {
    let found = LEFTOVERS.iter().filter(|word| source.text.contains(**word));
    found.map(|word| format!("`{word}` is left")).collect()
}

fn found(source: &Source, patterns: &[&str]) -> Vec<String> {
    let code = source.code_in_use();
    let line = |at: usize| code[..at].matches('\n').count() + 1;
    patterns
        .iter()
        .flat_map(|pattern| code.match_indices(pattern))
        .map(|(at, pattern)| format!("line {}: `{pattern}`", line(at)))
        .collect()
}

/// Blanks comments, strings and character literals, so that only code is searched.
fn blanked(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = literal_or_comment(rest, code.chars().next_back()).unwrap_or(0);
        if length == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            code.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
    }
    code
}

/// How long the comment or literal is that `text` begins with; none if it begins with code.
fn literal_or_comment(text: &str, before: Option<char>) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(text.find("*/").map_or(text.len(), |at| at + 2));
    }
    if text.starts_with('"') {
        return Some(quoted_length(text, '"'));
    }
    let in_a_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if text.starts_with('r') && !(in_a_word && before != Some('b')) {
        let hashes = text[1..].chars().take_while(|c| *c == '#').count();
        if text[1 + hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = 2 + hashes;
            return Some(text[start..].find(&end).map_or(text.len(), |at| start + at + end.len()));
        }
    }
    if text.starts_with('\'') {
        // A lifetime has no closing quote after one character.
        let mut chars = text.chars().skip(1);
        let escaped = chars.next() == Some('\\');
        if escaped || chars.next() == Some('\'') {
            return Some(quoted_length(text, '\''));
        }
    }
    None
}

fn quoted_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}
