//! How many instructions the steps of a click take, counted by valgrind's callgrind beside the last recorded ones.
//!
//! Counts are the same on a busy machine and on a quiet one, where times are not. They say nothing of waits
//! for memory and nothing of the kernel's part. Each step is counted twice, with few and with many
//! repetitions, so that what comes before the first does not count.
//!
//! `cargo bench --bench instructions` shows them, with `-- --record` it records them, too. Where valgrind is
//! not installed it says so, and nothing fails.

#![expect(clippy::disallowed_methods, reason = "a bench starts its own threads and programs")]
#![expect(clippy::print_stdout, reason = "a command's output is its purpose")]
#![expect(clippy::unwrap_used, reason = "a bench ends at the first thing that is wrong")]

#[path = "shared/subjects.rs"]
mod subjects;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};

use holdfast::app::{self, Origin, Start};
use holdfast::cli::links::{Format, Manner, import};
use holdfast::event::UnixMillis;
use holdfast::journal::Batch;
use holdfast::{config, database};

use subjects::{PATH, Running, TURN, hit, routes, stage_hit, table, token, url};

/// One thing that is counted.
struct Step {
    name: &'static str,
    /// Does it so many times.
    run: fn(u64),
    few: u64,
    many: u64,
    /// Threads that count, by a part of the name of a function that they alone run; all when there is none.
    threads: &'static [&'static str],
}

const STEPS: [Step; 5] = [
    Step { name: "route", run: route, few: 1_000, many: 11_000, threads: &[] },
    Step { name: "look-up", run: look_up, few: 1_000, many: 11_000, threads: &[] },
    Step { name: "encode", run: encode, few: 1_000, many: 11_000, threads: &[] },
    Step { name: "append", run: append, few: 320, many: 6_400, threads: &[] },
    Step {
        name: "request",
        run: request,
        few: 320,
        many: 3_200,
        threads: &["front::thread::run", "committer::Committer"],
    },
];

/// More than this makes no difference to the look-up but takes long to build here.
const LINKS: u64 = 2_000;
const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/performance/instructions.csv");
const HEADER: &str = "at_unix_s,profile,step,instructions";
/// A change that is pointed at.
const NOTABLE: f64 = 0.03;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["run", name, times] => {
            let step = STEPS.iter().find(|step| step.name == name).unwrap();
            (step.run)(times.parse().unwrap());
        }
        // cargo adds `--bench`.
        ref words => report(words.contains(&"--record")),
    }
}

fn report(record: bool) {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("valgrind is not installed: instructions are not counted");
        return;
    }
    let profile = if cfg!(debug_assertions) { "ci" } else { "release" };
    let recorded = fs::read_to_string(RECORDED).unwrap_or_default();
    let mut rows = String::new();
    println!("instructions of a click's steps (callgrind, profile {profile}), beside the last recorded:");
    for step in &STEPS {
        let counts = [step.few, step.many].map(|times| count(step, times));
        let instructions = counts[1].saturating_sub(counts[0]) / (step.many - step.few);
        let beside = match last(&recorded, profile, step.name) {
            Some(before) => {
                let change = instructions as f64 / before as f64 - 1.0;
                let mark = if change.abs() > NOTABLE { "  <-- changed" } else { "" };
                format!("{before:>8} before, {:+.1} %{mark}", change * 100.0)
            }
            None => "not recorded yet".to_owned(),
        };
        println!("  {:<8}{instructions:>8}   {beside}", step.name);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        writeln!(rows, "{now},{profile},{},{instructions}", step.name).unwrap();
    }
    if record {
        let header = if recorded.is_empty() { format!("{HEADER}\n") } else { String::new() };
        fs::write(RECORDED, format!("{recorded}{header}{rows}")).unwrap();
    }
}

/// What the step took when it was recorded last.
fn last(recorded: &str, profile: &str, step: &str) -> Option<u64> {
    recorded.lines().rev().find_map(|line| match line.split(',').collect::<Vec<_>>()[..] {
        [_, of_profile, of_step, instructions] if of_profile == profile && of_step == step => {
            instructions.parse().ok()
        }
        _ => None,
    })
}

/// All instructions of a process that does the step so many times, of the threads that count.
fn count(step: &Step, times: u64) -> u64 {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--separate-threads=yes"])
        .arg(format!("--callgrind-out-file={}", folder.path().join("counted").display()))
        .arg(std::env::current_exe().unwrap())
        .args(["run", step.name, &times.to_string()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {}", step.name, String::from_utf8_lossy(&output.stderr));
    let files = fs::read_dir(folder.path()).unwrap();
    let profiles: Vec<String> = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    let counted: Vec<u64> = profiles
        .iter()
        .filter(|profile| counts(step, profile))
        .filter_map(|profile| total(profile))
        .collect();
    // A thread whose function has another name now would be left out unseen.
    assert!(
        counted.len() >= step.threads.len(),
        "{}: not all threads of {:?} were found",
        step.name,
        step.threads
    );
    counted.iter().sum()
}

fn counts(step: &Step, profile: &str) -> bool {
    step.threads.is_empty() || step.threads.iter().any(|part| runs(part, profile))
}

/// Whether the thread runs a function with `part` in its name. A function has a number, and its name beside it where
/// it comes for the first time, `fn=(number) name`, which may be where it is called, `cfn=`.
fn runs(part: &str, profile: &str) -> bool {
    let named = profile.lines().filter_map(|line| function(line, "fn=").or_else(|| function(line, "cfn=")));
    let numbers: HashSet<&str> =
        named.filter(|(_, name)| name.contains(part)).map(|(number, _)| number).collect();
    profile.lines().filter_map(|line| function(line, "fn=")).any(|(number, _)| numbers.contains(number))
}

/// The number of a function, and its name where it stands there.
fn function<'p>(line: &'p str, key: &str) -> Option<(&'p str, &'p str)> {
    line.strip_prefix(key).map(|rest| rest.split_once(' ').unwrap_or((rest, "")))
}

fn total(profile: &str) -> Option<u64> {
    profile.lines().rev().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok())
}

fn route(times: u64) {
    let (routes, mut scratch) = (routes(), Vec::new());
    for _ in 0..times {
        black_box(routes.find(black_box(PATH), &mut scratch).unwrap().token.len());
    }
}

fn look_up(times: u64) {
    let (table, namespace) = table(LINKS);
    let tokens: Vec<String> = (0..LINKS).map(token).collect();
    for token in tokens.iter().cycle().take(times as usize) {
        assert!(black_box(table.get(namespace, token.as_bytes())).is_some());
    }
}

fn encode(times: u64) {
    let (event, mut out) = (hit(), Vec::with_capacity(4096));
    for _ in 0..times {
        out.clear();
        black_box(&event).encode(&mut out);
    }
}

/// Encodes, stages and commits hits in batches of one turn, each waited for.
fn append(times: u64) {
    let running = Running::start();
    let (mut stager, event) = (running.stager(), hit());
    for first in (0..times).step_by(TURN as usize) {
        let mut batch = Batch(0);
        for _ in 0..TURN.min(times - first) {
            batch = stage_hit(&mut stager, &event);
        }
        stager.flush();
        while stager.acknowledged().synced < batch {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Asks a whole edge in this process, one request on each of a turn's connections at a time.
fn request(times: u64) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let address = start(folder.path());
    let mut connections: Vec<TcpStream> = (0..TURN).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut response = [0; 4096];
    for first in (0..times).step_by(TURN as usize) {
        for (connection, i) in connections.iter_mut().zip(first..times) {
            let token = token(i % LINKS);
            let head = format!(
                "GET /c/{token} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) \
                 AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0\r\nAccept: */*\r\n\r\n"
            );
            connection.write_all(head.as_bytes()).unwrap();
        }
        for (connection, _) in connections.iter_mut().zip(first..times) {
            let length = connection.read(&mut response).unwrap();
            assert!(response[..length].starts_with(b"HTTP/1.1 302 "), "no redirect");
        }
    }
    // The edge would go on; what it has to keep is nobody's.
    drop(folder);
    #[expect(clippy::exit, reason = "ends the edge's threads with their client")]
    std::process::exit(0);
}

/// Starts an edge with links of its own and waits until it answers.
fn start(folder: &Path) -> SocketAddr {
    fs::create_dir(folder.join("data")).unwrap();
    let (file, links) = (folder.join("holdfast.toml"), folder.join("links.csv"));
    fs::write(&file, CONFIGURATION).unwrap();
    let rows = (0..LINKS).map(|i| format!("bench,{},{},spring-sale,,,\n", token(i), url(i)));
    let head = "namespace,token,url,campaign,append,expires_at,disabled\n".to_owned();
    fs::write(&links, rows.fold(head, |all, row| all + &row)).unwrap();
    let config = config::load(&file, &[]).unwrap();
    database::create(&config.database.source, UnixMillis(1)).unwrap();
    import(&links, Format::Csv, &config.database.source, &Manner::default()).unwrap();
    let (ready, started) = mpsc::channel();
    let start = Start { origin: Origin { file, environment: Vec::new() }, takeover: false };
    thread::spawn(move || {
        app::run(config, start, |addresses| ready.send(addresses.clone()).unwrap()).unwrap()
    });
    let addresses = started.recv().unwrap();
    // The links are loaded behind the start; until then a look-up answers, which costs more.
    while !is_ready(&addresses.admin) {
        thread::sleep(Duration::from_millis(50));
    }
    addresses.http[0]
}

fn is_ready(admin: &str) -> bool {
    let mut connection = TcpStream::connect(admin).unwrap();
    let head = format!("GET /ready HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    connection.write_all(head.as_bytes()).unwrap();
    let mut response = Vec::new();
    connection.read_to_end(&mut response).unwrap();
    response.starts_with(b"HTTP/1.1 200 ")
}

const CONFIGURATION: &str = r#"
edge = "bench"
data = "data"

[listen]
http = ["127.0.0.1:0"]
threads = 1

[admin]
listen = "127.0.0.1:0"

[database]
url = "sqlite:holdfast.db"

[[site]]
name = "bench"
hosts = ["127.0.0.1"]
namespace = "bench"

[[site.route]]
path = "/c/{token}"
kind = "click"
"#;
