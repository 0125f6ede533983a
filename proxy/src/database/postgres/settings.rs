//! How to reach a PostgreSQL server: libpq's address, and what else the configuration says of it.

use super::foreign::Reading;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use certs::{Roots, Verify};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// What an address may look like, for people.
pub const ADDRESS: &str = "\"postgres://USER@HOST:PORT/DATABASE?sslmode=…\"";
/// libpq's words for how a connection is encrypted, of which `allow` is left out: it prefers not to be.
const SSL_MODES: [&str; 5] = ["disable", "prefer", "require", "verify-ca", "verify-full"];
/// Parameters that are handed on as they are.
const PARAMETERS: [&str; 3] = ["host", "port", "target_session_attrs"];
/// How the characters of a password are written that mean something in an address.
const ENCODE: &str = "in a password, write @ as %40, ? as %3F, & as %26, / as %2F and % as %25";
/// Silence on an idle connection after which the kernel asks whether the other side is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// Whether something between us and the server shares its connections among many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooler {
    /// Nothing, or something that keeps a connection for a session.
    None,
    /// A pooler that gives a connection per transaction: what belongs to a session (LISTEN, prepared
    /// statements, settings) does not work.
    Transaction,
}

/// How to reach a server, and what to use there. Its `Debug` shows no password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    server: Config,
    verify: Verify,
    roots: Roots,
    /// The schema that holds the tables.
    pub(super) schema: String,
    pub(super) pooler: Pooler,
    /// The edge's name, for whoever looks at the server's list of connections.
    pub(super) edge: String,
    pub(super) reading: Option<Reading>,
    pub(super) statements: Vec<String>,
}

/// What is wrong with an address, and what would be right; it repeats nothing of the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressFault {
    /// What was found.
    pub found: String,
    /// What is allowed.
    pub allowed: String,
}

impl AddressFault {
    fn new(found: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { found: found.into(), allowed: allowed.into() }
    }
}

/// One server of several, with everything that is needed to connect to it alone.
pub(super) struct Candidate {
    pub(super) config: Config,
    /// `None` over a unix socket and where TLS is not wanted.
    pub(super) tls: Option<(Verify, Roots)>,
}

impl Settings {
    /// Takes libpq's address apart; relative names of files are made whole by `resolve`.
    ///
    /// # Errors
    /// [`AddressFault`].
    pub fn parse(url: &str, resolve: impl Fn(&str) -> PathBuf) -> Result<Self, AddressFault> {
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        if query.contains('@') {
            return Err(AddressFault::new("an @ after the first ?", ENCODE));
        }
        let mut kept = Vec::new();
        let mut mode = None;
        let mut roots = None;
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match name {
                "sslmode" => mode = Some(ssl_mode(value)?),
                "sslrootcert" if value == "system" => roots = Some(Roots::System),
                "sslrootcert" => roots = Some(Roots::File(resolve(&decoded(value)))),
                name if PARAMETERS.contains(&name) => kept.push(part),
                "password" => {
                    return Err(AddressFault::new(
                        "a password among the parameters",
                        "write it as USER:PASSWORD@, or name a file in database.password_file",
                    ));
                }
                _ => {
                    return Err(AddressFault::new(
                        format!("the parameter {name:?}"),
                        format!("sslmode, sslrootcert, {}", PARAMETERS.join(", ")),
                    ));
                }
            }
        }
        let plain =
            if kept.is_empty() { address.to_owned() } else { format!("{address}?{}", kept.join("&")) };
        let mut server: Config = plain.parse().map_err(|error: tokio_postgres::Error| {
            let why = error.into_source().map_or_else(|| "no such address".to_owned(), |e| e.to_string());
            AddressFault::new(why, ADDRESS)
        })?;
        if server.get_hosts().iter().any(|host| matches!(host, Host::Tcp(host) if host.contains('@'))) {
            return Err(AddressFault::new("a host with an @", ENCODE));
        }
        if server.get_hosts().is_empty() {
            return Err(AddressFault::new("no host", ADDRESS));
        }
        if server.get_ports().len() > 1 && server.get_ports().len() != server.get_hosts().len() {
            return Err(AddressFault::new("more ports than hosts", ADDRESS));
        }
        if server.get_dbname().is_none() {
            return Err(AddressFault::new("no database", ADDRESS));
        }
        server.keepalives(true).keepalives_idle(KEEPALIVE_IDLE).keepalives_interval(KEEPALIVE_INTERVAL);
        server.keepalives_retries(KEEPALIVE_RETRIES);
        let (ssl, verify) = verification(mode, roots.as_ref())?;
        server.ssl_mode(ssl);
        Ok(Self {
            server,
            verify,
            roots: roots.unwrap_or(Roots::System),
            schema: "holdfast".to_owned(),
            pooler: Pooler::None,
            edge: String::new(),
            reading: None,
            statements: Vec::new(),
        })
    }

    /// Takes a password that counts instead of the address's.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        self.server.password(password);
        self
    }

    /// The schema that holds the tables.
    #[must_use]
    pub fn with_schema(self, schema: String) -> Self {
        Self { schema, ..self }
    }

    /// Whether a pooler stands before the server.
    #[must_use]
    pub fn with_pooler(self, pooler: Pooler) -> Self {
        Self { pooler, ..self }
    }

    /// How links are read from a platform's own tables; from ours with `None`.
    #[must_use]
    pub fn with_reading(self, reading: Option<Reading>) -> Self {
        Self { reading, ..self }
    }

    /// What writes hits into a platform's own tables; with nothing they go into ours.
    #[must_use]
    pub fn with_statements(self, statements: Vec<String>) -> Self {
        Self { statements, ..self }
    }

    /// The edge's name.
    #[must_use]
    pub fn with_edge(self, edge: String) -> Self {
        Self { edge, ..self }
    }

    /// Makes sure that the authorities which a connection will ask can be read.
    ///
    /// # Errors
    /// [`AddressFault`].
    pub fn check_files(&self) -> Result<(), AddressFault> {
        if self.verify == Verify::Nothing {
            return Ok(());
        }
        certs::client(self.verify, &self.roots).map(drop).map_err(|fault| {
            AddressFault::new(
                format!("sslrootcert: {}", crate::causes::chain(&fault)),
                "sslrootcert=FILE with the authorities' certificates in PEM, or sslrootcert=system",
            )
        })
    }

    /// Each server by itself, in the order of the address.
    pub(super) fn candidates(&self, role: &str, timeout: Duration) -> Vec<Candidate> {
        let (hosts, ports) = (self.server.get_hosts(), self.server.get_ports());
        let name = format!("holdfast {} {role}", self.edge);
        let one = |(index, host): (usize, &Host)| {
            let mut config = Config::new();
            let server = &self.server;
            config.application_name(name.split_whitespace().collect::<Vec<_>>().join(" "));
            server.get_user().map(|user| config.user(user));
            server.get_password().map(|password| config.password(password));
            server.get_dbname().map(|database| config.dbname(database));
            config.port(port_of(ports, index));
            config.connect_timeout(timeout).tcp_user_timeout(timeout.saturating_mul(2));
            config.keepalives(true).keepalives_idle(KEEPALIVE_IDLE).keepalives_interval(KEEPALIVE_INTERVAL);
            config.keepalives_retries(KEEPALIVE_RETRIES);
            config.target_session_attrs(server.get_target_session_attrs());
            let tls = match host {
                Host::Tcp(host) => {
                    config.host(host).ssl_mode(server.get_ssl_mode());
                    (server.get_ssl_mode() != SslMode::Disable).then(|| (self.verify, self.roots.clone()))
                }
                // As libpq: nobody listens on a unix socket.
                Host::Unix(folder) => {
                    config.host_path(folder).ssl_mode(SslMode::Disable);
                    None
                }
            };
            Candidate { config, tls }
        };
        hosts.iter().enumerate().map(one).collect()
    }

    /// Whether only a server that takes writes will do.
    pub(super) fn wants_writes(&self) -> bool {
        self.server.get_target_session_attrs() == TargetSessionAttrs::ReadWrite
    }
}

/// The address without user and password.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        let ports = self.server.get_ports();
        for (index, host) in self.server.get_hosts().iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            let port = port_of(ports, index);
            match host {
                Host::Tcp(host) if host.contains(':') => write!(f, "[{host}]:{port}")?,
                Host::Tcp(host) => write!(f, "{host}:{port}")?,
                Host::Unix(folder) => write!(f, "{}:{port}", folder.display())?,
            }
        }
        write!(f, "/{}", self.server.get_dbname().unwrap_or_default())
    }
}

fn port_of(ports: &[u16], index: usize) -> u16 {
    ports.get(index).or_else(|| ports.first()).copied().unwrap_or(5432)
}

/// What is checked, as libpq does it: who names authorities wants them to be asked; and those of the
/// system are worth something only together with the name, for anybody gets a certificate from them.
fn verification(
    mode: Option<(SslMode, Verify)>,
    roots: Option<&Roots>,
) -> Result<(SslMode, Verify), AddressFault> {
    const FULL: (SslMode, Verify) = (SslMode::Require, Verify::Name);
    match (mode, roots) {
        (None, Some(Roots::System)) => Ok(FULL),
        (Some(mode), Some(Roots::System)) if mode != FULL => Err(AddressFault::new(
            "sslrootcert=system with a weaker sslmode",
            "sslmode=verify-full, or a file of your own authorities",
        )),
        (Some((_, Verify::Chain)), None) => Err(AddressFault::new(
            "sslmode=verify-ca without sslrootcert",
            "sslrootcert=FILE with the authorities' certificates in PEM, or sslmode=verify-full",
        )),
        (Some((SslMode::Require, Verify::Nothing)), Some(_)) => Ok((SslMode::Require, Verify::Chain)),
        (mode, _) => Ok(mode.unwrap_or((SslMode::Prefer, Verify::Nothing))),
    }
}

fn ssl_mode(word: &str) -> Result<(SslMode, Verify), AddressFault> {
    match word {
        "disable" => Ok((SslMode::Disable, Verify::Nothing)),
        "prefer" => Ok((SslMode::Prefer, Verify::Nothing)),
        "require" => Ok((SslMode::Require, Verify::Nothing)),
        "verify-ca" => Ok((SslMode::Require, Verify::Chain)),
        "verify-full" => Ok((SslMode::Require, Verify::Name)),
        _ => Err(AddressFault::new("an unknown sslmode", SSL_MODES.join(", "))),
    }
}

/// The address with its password hidden, for listings.
#[must_use]
pub fn masked(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // The last one: a password may hold one that should have been written as %40.
    let Some((login, place)) = rest.rsplit_once('@') else { return url.to_owned() };
    match login.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***@{place}"),
        None => url.to_owned(),
    }
}

/// A value of the address with its `%HH` undone.
fn decoded(value: &str) -> String {
    url::form_urlencoded::parse(format!("v={}", value.replace('+', "%2B")).as_bytes())
        .next()
        .map_or_else(String::new, |(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Settings, AddressFault> {
        Settings::parse(url, |file| PathBuf::from("/etc").join(file))
    }

    #[test]
    fn an_address_says_where_and_how() {
        let settings = parse("postgres://me:p%40ss@one:1,two:2/mail?sslmode=verify-full&sslrootcert=ca.pem&target_session_attrs=read-write").unwrap();
        assert_eq!(settings.to_string(), "postgres://one:1,two:2/mail");
        assert_eq!((settings.verify, settings.wants_writes()), (Verify::Name, true));
        assert_eq!(settings.roots, Roots::File("/etc/ca.pem".into()));
        let candidates = settings.candidates("follow", Duration::from_secs(2));
        assert_eq!(candidates.len(), 2);
        assert_eq!(candidates[1].config.get_ports(), [2]);
        assert_eq!(candidates[1].config.get_password(), Some(&b"p@ss"[..]));
        assert!(!format!("{settings:?}").contains("p@ss"));
    }

    #[test]
    fn a_unix_socket_is_a_folder_and_has_no_tls() {
        let settings = parse("postgres:///mail?host=/run/postgresql&port=5433&sslmode=require").unwrap();
        assert_eq!(settings.to_string(), "postgres:///run/postgresql:5433/mail");
        assert!(settings.candidates("sink", Duration::from_secs(2))[0].tls.is_none());
    }

    #[test]
    fn naming_authorities_asks_them() {
        let verify = |query: &str| parse(&format!("postgres://h/d?{query}")).unwrap().verify;
        assert_eq!(verify(""), Verify::Nothing);
        assert_eq!(verify("sslmode=require"), Verify::Nothing);
        assert_eq!(verify("sslmode=require&sslrootcert=ca.pem"), Verify::Chain);
        assert_eq!(verify("sslmode=verify-ca&sslrootcert=ca.pem"), Verify::Chain);
        assert_eq!(verify("sslmode=verify-full"), Verify::Name);
        assert_eq!(verify("sslrootcert=system"), Verify::Name);
        for weak in ["verify-ca", "verify-ca&sslrootcert=system", "require&sslrootcert=system"] {
            assert!(parse(&format!("postgres://h/d?sslmode={weak}")).is_err(), "{weak}");
        }
    }

    #[test]
    fn faults_repeat_no_secret() {
        for url in [
            "postgres://me:secret@/d",
            "postgres://me:secret@h",
            "postgres://me:secret@h:none/d",
            "postgres://me:secret@h/d?sslmode=secret",
            "postgres://me:secret@h/d?password=secret",
            "postgres://me:secret@h/d?colour=secret",
            "postgres://me:a?secret@h/d",
            "postgres://me:a?secret=b@h/d",
            "postgres://me:a@secret@h/d",
        ] {
            let fault = parse(url).unwrap_err();
            assert!(!format!("{fault:?}").contains("secret"), "{fault:?}");
        }
        assert_eq!(masked("postgres://me:secret@h/d"), "postgres://me:***@h/d");
        assert_eq!(masked("postgres://me@h/d"), "postgres://me@h/d");
    }
}
