//! What the configuration names on disk: folders, and files that are read whole; bounded, never written.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use rustix::fs::Access;

use super::fault::Wrong;

/// A text that no log, fault or listing ever shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one place that checks it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Shorter tokens can be guessed.
const TOKEN_BYTES_MIN: usize = 16;
const TOKEN_BYTES_MAX: usize = 4096;

/// Reads the configuration file, which is text of a bounded size.
pub(super) fn read_text(path: &Path, bytes_max: usize) -> Result<String, Wrong> {
    let bytes = read(path, bytes_max)?;
    String::from_utf8(bytes).map_err(|error| {
        let line = 1 + error
            .as_bytes()
            .iter()
            .take(error.utf8_error().valid_up_to())
            .filter(|&&b| b == b'\n')
            .count();
        Wrong::new(format!("bytes that are not UTF-8 in line {line}"), "text in UTF-8")
    })
}

/// Reads a token: one line of visible ASCII.
pub(super) fn read_token(path: &Path) -> Result<Secret, Wrong> {
    let unnamed = |wrong| Wrong {
        advice: "name a file that this user may read, with the token in it".to_owned(),
        ..wrong
    };
    let bytes = read(path, TOKEN_BYTES_MAX).map_err(unnamed)?;
    let token = bytes.trim_ascii();
    if token.len() < TOKEN_BYTES_MIN || !token.iter().all(u8::is_ascii_graphic) {
        return Err(Wrong {
            found: "holds no token".to_owned(),
            advice: format!(
                "allowed: one line of at least {TOKEN_BYTES_MIN} visible ASCII characters without spaces, \
                 such as `openssl rand -hex 32` prints"
            ),
        });
    }
    Ok(Secret(String::from_utf8_lossy(token).into_owned()))
}

/// Reads a password: one line of text.
pub(super) fn read_password(path: &Path) -> Result<Secret, Wrong> {
    let advice = || "name a file that this user may read, with the password in its one line".to_owned();
    let bytes = read(path, TOKEN_BYTES_MAX).map_err(|wrong| Wrong { advice: advice(), ..wrong })?;
    let text = String::from_utf8_lossy(&bytes);
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() || password.chars().any(char::is_control) {
        return Err(Wrong { found: "holds no password".to_owned(), advice: advice() });
    }
    Ok(Secret(password.to_owned()))
}

/// Reads a whole file.
pub(super) fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, Wrong> {
    let unreadable = |error: io::Error| Wrong {
        found: format!("cannot be read: {}", reason(&error)),
        advice: format!("make {} a file that this user may read", path.display()),
    };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > bytes_max {
        return Err(Wrong {
            found: "is too big".to_owned(),
            advice: format!("allowed: at most {}", super::units::show_size(bytes_max as u64)),
        });
    }
    Ok(bytes)
}

/// Checks that `path` is a folder in which this process may make and read files.
pub(super) fn check_folder(path: &Path) -> Result<(), Wrong> {
    let wrong = |found: String, advice: String| Err(Wrong { found, advice });
    let shown = path.display();
    match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            wrong("does not exist".to_owned(), format!("make the folder {shown}, or run `holdfast init`"))
        }
        Err(error) => wrong(
            format!("cannot be looked into: {}", reason(&error)),
            format!("let this user enter {shown}"),
        ),
        Ok(found) if !found.is_dir() => wrong("is not a folder".to_owned(), format!("make {shown} a folder")),
        Ok(_) => match rustix::fs::access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
            Ok(()) => Ok(()),
            Err(error) => wrong(
                format!("cannot be used: {}", reason(&error.into())),
                format!("let this user read and write {shown}"),
            ),
        },
    }
}

/// The name of this machine; `None` when it has none that could be an edge's.
pub(super) fn host_name() -> Option<String> {
    let bytes = read(Path::new("/proc/sys/kernel/hostname"), 256).ok()?;
    String::from_utf8(bytes).ok().map(|name| name.trim().to_owned())
}

/// The system's words for an error, without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}
