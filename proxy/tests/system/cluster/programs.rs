//! PostgreSQL's programs, where Debian puts them, run by a user that they accept.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// A program of the newest PostgreSQL, to be run as the server's user.
pub fn program(name: &str) -> Command {
    as_user(Command::new(folder().join(name)))
}

/// The same for one that serves; it is told to end when the test ends without having ended it.
pub fn server(name: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if let Some(user) = user() {
        command
            .arg(format!("--reuid={}", user.id))
            .arg(format!("--regid={}", user.group))
            .arg("--clear-groups");
    }
    command.arg(folder().join(name));
    command
}

/// The command, to be run as the server's user.
pub fn as_user(mut command: Command) -> Command {
    if let Some(user) = user() {
        command.uid(user.id).gid(user.group);
    }
    command
}

/// Gives a file or a whole folder to the server's user.
pub fn give(path: &Path) {
    if let Some(user) = user() {
        succeed(Command::new("chown").arg("-R").arg(format!("{}:{}", user.id, user.group)).arg(path));
    }
}

/// Runs a command that must succeed.
pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
        let newest = versions
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let version = path.file_name()?.to_str()?.parse::<u32>().ok()?;
                path.join("bin/postgres").exists().then_some((version, path.join("bin")))
            })
            .max();
        newest.expect("a server in /usr/lib/postgresql/*/bin: install Debian's package postgresql").1
    })
}

struct User {
    id: u32,
    group: u32,
}

/// Who runs the server; none where the tests themselves may.
fn user() -> Option<&'static User> {
    static USER: OnceLock<Option<User>> = OnceLock::new();
    USER.get_or_init(|| {
        if !rustix::process::getuid().is_root() {
            return None;
        }
        let users = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
        let line = users.lines().find(|line| line.starts_with("postgres:"));
        let fields: Vec<_> =
            line.expect("a user postgres, which Debian's package postgresql makes").split(':').collect();
        Some(User { id: fields[2].parse().expect("user"), group: fields[3].parse().expect("group") })
    })
    .as_ref()
}
