//! Tests of configurations as a whole: faults with their lines, environment, reload, the documented file.

use std::fs;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::database::Source;
use crate::event::{Kind, UnixMillis};
use crate::journal::Mode;
use crate::policy::Part;
use crate::route::Route;

/// A folder with a configuration's surroundings: the data folder and files to name.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.file("data")).unwrap();
        place.with("token", "0123456789abcdef0123456789abcdef\n").with("short", "secret\n")
    }

    fn with(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        fs::write(self.file(name), content).unwrap();
        self
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn parse(&self, text: &str, env: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        parse(text, &self.file("holdfast.toml"), &owned(env)).map_err(|faults| self.shown(&faults))
    }

    /// Faults as people see them, with the folder left out.
    fn shown(&self, faults: &[Fault]) -> Vec<String> {
        let folder = format!("{}/", self.0.path().display());
        faults.iter().map(|fault| fault.to_string().replace(&folder, "")).collect()
    }
}

fn owned(env: &[(&str, &str)]) -> Vec<(String, String)> {
    env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A whole site, to stand after what is tested.
const SITE: &str = "\n[[site]]\nname = 'last'\nhosts = ['last.example.com']\npreset = 'dotdigital'\n";

/// Holds the faults of `text`, with a whole site after it, against `expected`: line, rest of the message.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    check_env(text, &[], expected);
}

#[track_caller]
fn check_env(text: &str, env: &[(&str, &str)], expected: &[&str]) {
    let found = Place::new().parse(&format!("{text}{SITE}"), env).err().unwrap_or_default();
    let found: Vec<&str> = found.iter().map(|fault| fault.trim_start_matches("holdfast.toml:")).collect();
    assert_eq!(found, expected, "\n--- in\n{text}\n");
}

#[test]
fn a_minimal_configuration_takes_the_defaults() {
    let place = Place::new();
    let config = place.parse(SITE, &[]).unwrap();
    assert_eq!(config.listen.http, ["0.0.0.0:8080".parse().unwrap()]);
    assert_eq!(config.data, place.file("data"));
    assert_eq!(config.database.source, Source::Sqlite(place.file("holdfast.db")));
    assert_eq!(config.links.follow.guard.forget_after, Duration::from_secs(30 * 86_400));
    assert_eq!(config.links.follow.guard.drop_max_ppm, 10_000);
    assert_eq!(config.journal.recorder.wait_max, Duration::from_millis(100));
    assert_eq!(config.address, Address::Truncated);
    assert_eq!(config.limits.connections_max, None);
    assert_eq!(config.admin.listen, AdminAddress::Tcp("127.0.0.1:9180".parse().unwrap()));
    let [site] = &config.sites[..] else { panic!("{:?}", config.sites) };
    assert_eq!((site.namespace.as_str(), site.brand.name.as_str()), ("last", "last"));
    assert_eq!(site.brand.colour.to_string(), "#1f6feb");
    assert_eq!(site.routes.iter().count(), 4);
    assert!(!config.edge.is_empty());
}

#[test]
fn wrong_values() {
    check(
        "listen.threads = 'many'",
        &["1: listen.threads: found \"many\"; allowed: a whole number from 0 to 1024"],
    );
    check(
        "listen.threads = 1025",
        &["1: listen.threads: found 1025; allowed: a whole number from 0 to 1024"],
    );
    check("listen.threads = -1", &["1: listen.threads: found -1; allowed: a whole number from 0 to 1024"]);
    check("listen.threads = 1.5", &["1: listen.threads: found 1.5; allowed: a whole number from 0 to 1024"]);
    check(
        "listen.threads = 99999999999999999999",
        &["1: listen.threads: found 99999999999999999999; allowed: a whole number from 0 to 1024"],
    );
    check(
        "\n\ndatabase.poll = 200",
        &["3: database.poll: found 200; allowed: a duration from \"10ms\" to \"1m\""],
    );
    check(
        "database.poll = '1ms'",
        &["1: database.poll: found \"1ms\"; allowed: a duration from \"10ms\" to \"1m\""],
    );
    check(
        "journal.segment = '64M'",
        &["1: journal.segment: found \"64M\"; allowed: a size from \"1MiB\" to \"1GiB\""],
    );
    check(
        "links.drop_max = 0.01",
        &["1: links.drop_max: found 0.01; allowed: a percentage from \"0%\" to \"100%\""],
    );
    check("record.url = 'yes'", &["1: record.url: found \"yes\"; allowed: true or false"]);
    check(
        "journal.mode = 'proces'",
        &["1: journal.mode: found \"proces\"; allowed: \"power\", \"process\" (did you mean \"process\"?)"],
    );
    check("journal.mode = 5", &["1: journal.mode: found 5; allowed: \"power\", \"process\""]);
    check("listen = 8080", &["1: listen: found 8080; allowed: a table, [listen]"]);
    check("window = 'now'", &["1: window: found \"now\"; allowed: tables, each headed [[window]]"]);
    check("window = [5]", &["1: window: found 5; allowed: tables, each headed [[window]]"]);
    check(
        "database.url = 'mysql://me:secret@db/x'",
        &["1: database.url: found an address that begins with \"mysql:\"; allowed: \"sqlite:FILE\", \
           FILE relative to the configuration's folder, or \"postgres://USER@HOST:PORT/DATABASE?sslmode=…\""],
    );
    check(
        "edge = 'my edge'",
        &["1: edge: found \"my edge\"; allowed: a name of 1 to 64 letters, digits, - _ or ."],
    );
}

#[test]
fn servers_and_their_passwords() {
    check(
        "[database]\nurl = 'postgres://me:secret@db/x?sslmode=sure'",
        &[
            "2: database.url: found an unknown sslmode; allowed: disable, prefer, require, verify-ca, verify-full",
        ],
    );
    check(
        "[database]\nurl = 'postgres://me:secret@db/x?sslmode=verify-full&sslrootcert=none.pem'",
        &[
            "2: database.url: found sslrootcert: none.pem cannot be read: No such file or directory (os error 2); \
           allowed: sslrootcert=FILE with the authorities' certificates in PEM, or sslrootcert=system",
        ],
    );
    check(
        "database.url = 'postgres://db'",
        &["1: database.url: found no database; allowed: \"postgres://USER@HOST:PORT/DATABASE?sslmode=…\""],
    );
    check(
        "[database]\nurl = 'postgres://me@db/x'\npassword_file = 'none'",
        &["3: database.password_file: the file cannot be read: no such file or directory; name a file that \
           this user may read, with the password in its one line"],
    );
    check(
        "[database]\nurl = 'postgres://me@db/x'\nschema = 'a-b'\npooler = 'session'",
        &[
            "3: database.schema: found \"a-b\"; allowed: a name of 1 to 63 letters, digits or _, which begins \
             with none of the digits",
            "4: database.pooler: found \"session\"; allowed: \"none\", \"transaction\"",
        ],
    );
    let text =
        format!("database = {{ url = 'postgres://me:in-the-url@db/x', password_file = 'short' }}{SITE}");
    let config = Place::new().parse(&text, &[]).unwrap();
    let Source::Postgres(settings) = &config.database.source else { panic!("{:?}", config.database) };
    let with = |password: &str| (**settings).clone().with_password(password) == **settings;
    assert!(with("secret") && !with("in-the-url"), "the file counts");
    assert_eq!(config.deliver.pump.sink, "postgres");
    let shown = format!("{config:?}{}", config.effective_toml());
    assert!(!shown.contains("secret") && !shown.contains("in-the-url"), "{shown}");
}

#[test]
fn addresses() {
    let allowed = "allowed: an IP address with a port, such as 0.0.0.0:8080 or [::]:8080";
    check(
        "[listen]\nhttp = [\n '127.0.0.1:80',\n ':80',\n 'localhost:80',\n 5\n]",
        &[
            &format!("4: listen.http: found \":80\"; {allowed}; for all addresses, 0.0.0.0:80 or [::]:80"),
            &format!("5: listen.http: found \"localhost:80\"; {allowed}"),
            "6: listen.http: found 5; allowed: a list of IP addresses with ports, such as [\"0.0.0.0:8080\"]",
        ],
    );
    check(
        "listen.http = []",
        &["1: listen.http: found no address; allowed: at least one, such as 0.0.0.0:8080"],
    );
    check(
        "listen.http = ['[::]:80', '[::]:80']",
        &["1: listen.http: found [::]:80 twice; name each address once"],
    );
    check(
        "listen.http = '0.0.0.0:9180'",
        &["1: listen.http: found 0.0.0.0:9180 for listen.http and 127.0.0.1:9180 for admin.listen; \
             give each listener a port of its own"],
    );
    let admin = "allowed: an IP address with a port, such as 127.0.0.1:9180, or unix:FILE";
    check("admin.listen = 'here'", &[&format!("1: admin.listen: found \"here\"; {admin}")]);
    check("admin.listen = 'unix:'", &[&format!("1: admin.listen: found \"unix:\"; {admin}")]);
}

#[test]
fn https_and_its_certificates() {
    check(
        "[listen]\nhttp = '0.0.0.0:80'\nhttps = '0.0.0.0:80'\n[tls]\nfolder = 'data'",
        &[
            "3: listen.https: found 0.0.0.0:80 for listen.http and 0.0.0.0:80 for listen.https; give each listener \
           a port of its own",
        ],
    );
    check(
        "[listen]\nhttps = '0.0.0.0:443'\n[tls]\nfolder = 'nowhere'\ntickets_file = 'short'\npoll = '1ms'",
        &[
            "5: tls.tickets_file: the file holds too little to be a secret; allowed: at least 32 bytes, such \
             as `openssl rand -hex 32` prints",
            "6: tls.poll: found \"1ms\"; allowed: a duration from \"100ms\" to \"1h\"",
        ],
    );
    let config = Place::new()
        .parse(
            &format!("listen.https = '[::]:443'\ntls.folder = 'data'\ntls.tickets_file = 'token'{SITE}"),
            &[],
        )
        .unwrap();
    assert_eq!(config.listen.https.len(), 1);
    assert!(config.tls.tickets.is_some());
    assert!(!config.effective_toml().contains("0123456789abcdef"));
    for bad in ["*.example.com", "example.com:443", "a b"] {
        check(
            &format!("tls.default = '{bad}'"),
            &[&format!(
                "1: tls.default: found \"{bad}\"; allowed: a host whose certificate is in the folder, or \"\" for none"
            )],
        );
    }
    // Plain http must start without a folder that is not there; `check` says it.
    let text = format!("listen.https = '[::]:443'\ntls.folder = 'nowhere'{SITE}");
    assert!(Place::new().parse(&text, &[]).is_ok());
}

#[test]
fn certificates_that_are_ordered() {
    let all = |acme: &str| format!("[listen]\nhttps = '[::]:443'\n[tls.acme]\n{acme}\n");
    check(
        &format!(
            "tls.folder = 'data'\n{}",
            all(
                "directory = 'http://ca.example/dir'\nterms_agreed = 'yes'\nways = ['dns-01', 'http-01']\ncontact = 'me'",
            )
        ),
        &[
            "5: tls.acme.directory: found \"http://ca.example/dir\"; allowed: the https address of an authority's \
             directory, such as \"https://acme-v02.api.letsencrypt.org/directory\", or \"\" for none",
            "6: tls.acme.terms_agreed: found \"yes\"; allowed: true or false",
            "7: tls.acme.ways: found \"dns-01\"; allowed: \"http-01\", \"tls-alpn-01\"",
            "8: tls.acme.contact: found \"me\"; allowed: addresses for mail, such as [\"ops@example.com\"]",
        ],
    );
    check(
        &all(
            "directory = 'https://ca.example/dir'\nways = []\nroots_file = 'none.pem'\neab_kid = 'k'\nlock = 'file'",
        ),
        &[
            "3: tls.acme.terms_agreed: found no agreement to the authority's terms; read the terms that its directory \
             names, and write true",
            "5: tls.acme.ways: found no way; allowed: at least one of \"http-01\", \"tls-alpn-01\"",
            "6: tls.acme.roots_file: found none.pem cannot be read: No such file or directory (os error 2); name a file \
             with the authorities' certificates in PEM, or \"\" for those that this system trusts",
            "7: tls.acme.eab_kid: found an identifier without its key; name its file in eab_key_file",
            "8: tls.acme.lock: found \"file\"; allowed: \"database\", \"none\"",
        ],
    );
    check(
        "[tls.acme]\ndirectory = 'https://ca.example/dir'\nterms_agreed = true\neab_key = 'hush'\n\
         [tls.acme.ask]\nurl = 'ftp://hush'",
        &[
            "2: tls.acme.directory: found an authority, and no address in listen.https; name the addresses for https \
             in listen.https, or \"\" here",
            "4: tls.acme.eab_key: found a key without its identifier; name the identifier in eab_kid",
            "6: tls.acme.ask.url: found no such address; allowed: an http or https address, or \"\" for none",
        ],
    );
    check(
        "[tls.acme]\nterms_agreed = true",
        &["1: tls.acme.directory: missing; allowed: the https address of an authority's directory, such as \
           \"https://acme-v02.api.letsencrypt.org/directory\", or \"\" for none"],
    );
    let bound = "directory = 'https://ca.example/dir'\nterms_agreed = true\neab_kid = 'kid'\neab_key = 'aHVzaC1odXNo'";
    let config = Place::new().parse(&format!("{}{SITE}", all(bound)), &[]).unwrap();
    assert_eq!(config.tls.certificates.folder, None);
    let acme = config.tls.acme.as_ref().unwrap();
    assert!(acme.locks && acme.orders.ask.is_none() && acme.orders.authority.binding.is_some());
    for shown in [format!("{config:?}"), config.effective_toml()] {
        assert!(!shown.contains("aHVzaC1odXNo"), "{shown}");
    }
}

#[test]
fn what_sites_say_of_tls_and_who_is_believed() {
    check(
        "[[site]]\nname = 'a'\nhosts = 'a.example.com'\npreset = 'dotdigital'\nhttps_redirect = '302'\nhsts = '1'",
        &[
            "5: site[1].https_redirect: found \"302\"; allowed: \"off\", \"301\", \"308\" (did you mean \"301\"?)",
            "6: site[1].hsts: found \"1\"; allowed: a duration from \"0s\" to \"3650d\"",
        ],
    );
    check(
        "[[site]]\nname = 'a'\nhosts = 'a.example.com'\npreset = 'dotdigital'\nhttps_redirect = '308'",
        &[
            "5: site[1].https_redirect: found a redirect, and no address in listen.https; name the addresses for \
           https in listen.https, or \"off\" here",
        ],
    );
    check(
        "[listen]\nproxy_protocol = ['10.0.0.0/8', '10.0.0.1/8']\ntrusted_proxies = 'all'",
        &[
            "2: listen.proxy_protocol: found \"10.0.0.1/8\": not an IP address, nor the first one of a network with \
             the length of its prefix; allowed: a list of networks such as [\"10.0.0.0/8\", \"2001:db8::1\"]",
            "3: listen.trusted_proxies: found \"all\": not an IP address, nor the first one of a network with the \
             length of its prefix; allowed: a list of networks such as [\"10.0.0.0/8\", \"2001:db8::1\"]",
        ],
    );
}

#[test]
fn a_unix_socket_has_a_bounded_path() {
    let place = Place::new();
    let text = format!("admin.listen = 'unix:/{}'{SITE}", "a".repeat(120));
    assert_eq!(
        place.parse(&text, &[]).unwrap_err(),
        ["holdfast.toml:1: admin.listen: found a path of 121 bytes; allowed: at most 107 for a unix socket"]
    );
    let config = place.parse(&format!("admin.listen = 'unix:admin.sock'{SITE}"), &[]).unwrap();
    assert_eq!(config.admin.listen, AdminAddress::Unix(place.file("admin.sock")));
}

#[test]
fn tokens_are_files_and_needed_off_loopback() {
    check(
        "admin.listen = '0.0.0.0:9180'",
        &[
            "1: admin.listen: found 0.0.0.0:9180, which others can reach, and no token_file; name a file with \
           a token in admin.token_file, or listen on 127.0.0.1 or unix:FILE",
        ],
    );
    check(
        "[admin]\nlisten = '0.0.0.0:9180'\ntoken_file = 'short'",
        &["3: admin.token_file: the file holds no token; allowed: one line of at least 16 visible ASCII \
           characters without spaces, such as `openssl rand -hex 32` prints"],
    );
    check(
        "admin.token_file = 's3cr3t'",
        &["1: admin.token_file: the file cannot be read: no such file or directory; name a file that this \
           user may read, with the token in it"],
    );
    let text = format!("admin = {{ listen = '0.0.0.0:9180', token_file = 'token' }}{SITE}");
    let config = Place::new().parse(&text, &[]).unwrap();
    let token = config.admin.token.as_ref().unwrap();
    assert_eq!(token.expose(), "0123456789abcdef0123456789abcdef");
    for shown in [format!("{config:?}"), config.effective_toml()] {
        assert!(!shown.contains(token.expose()), "{shown}");
    }
}

#[test]
fn misspelled_settings() {
    check("listn.http = ''", &["1: listn: unknown setting; did you mean listen?"]);
    check("[listen]\nthread = 2", &["2: listen.thread: unknown setting; did you mean listen.threads?"]);
    check(
        "[admin]\ndata = 'x'",
        &["2: admin.data: unknown setting; did you mean data? it belongs above the first [table]"],
    );
    check(
        "retain = '1d'",
        &["1: retain: unknown setting; did you mean journal.retain? it belongs under [journal]"],
    );
    check(
        "[privacy]\ncookies = false",
        &["2: privacy.cookies: unknown setting; allowed in privacy: address"],
    );
    check(
        "[[site]]\nname = 'a'\nhost = ['a.example.com']\n[[site.route]]\npaht = '/x'",
        &[
            "1: site[1].hosts: missing; allowed: a list of at least one host; a host such as \
             \"click.example.com\", or \"*.example.com\" for all below it",
            "3: site[1].host: unknown setting; did you mean site.hosts?",
            "4: site[1].route[1].path: missing; allowed: a pattern such as \"/c/{token}\"",
            "5: site[1].route[1].paht: unknown setting; did you mean site.route.path?",
        ],
    );
}

#[test]
fn lines_that_are_not_toml() {
    let advice = "correct the line; the format is TOML, see https://toml.io";
    // The rest of the file is checked as if the lines were not there.
    check(
        "edge = \nthis is nothing\n[listen\nthreads = 'x'\n[database]\npoll = 'x'\n[database]\ntimeout = 'x'",
        &[
            &format!("1: not TOML: string values must be quoted, expected literal string; {advice}"),
            &format!("2: not TOML: key with no value, expected `=`; {advice}"),
            &format!("3: not TOML: unclosed table, expected `]`; {advice}"),
            "6: database.poll: found \"x\"; allowed: a duration from \"10ms\" to \"1m\"",
            &format!("7: not TOML: duplicate key; {advice}"),
        ],
    );
    // What is missing may stand in the line that could not be read.
    check(
        "[[site]]\nname = a\nhosts = 'h'\npreset = 'dotdigital'",
        &[&format!("2: not TOML: string values must be quoted, expected literal string; {advice}")],
    );
    let faults = Place::new().parse(&"<xml>\n".repeat(1000), &[]).unwrap_err();
    assert_eq!(faults.len(), 20, "{faults:#?}");
}

#[test]
fn sites_and_hosts() {
    let host = "a host such as \"click.example.com\", or \"*.example.com\" for all below it";
    check(
        "[[site]]\nname = 'a'\npreset = 'dotdigital'\nhosts = [\n'a.example.com',\n'A.example.com.',\n\
         'x.example.com:80',\n'*.example.com',\n'LAST.example.com']",
        &[
            "6: site[1].hosts: found \"a.example.com\", which this site has already; name each host once, in \
             the one site that answers for it",
            &format!(
                "7: site[1].hosts: found \"x.example.com:80\": a host is given without its port; allowed: {host}"
            ),
            "12: site[2].hosts: found \"last.example.com\", which site[1] (\"a\") has already; name each \
             host once, in the one site that answers for it",
        ],
    );
    check(
        "[[site]]\nname = 'last'\nhosts = []\npreset = ''",
        &[
            "1: site[1].route: missing; allowed: at least one [[site.route]], or a preset (\"dotdigital\", \"listmonk\")",
            &format!("3: site[1].hosts: found no host; allowed: at least one host; {host}"),
            "6: site[2].name: found \"last\", which site[1] has; give each site a name of its own",
        ],
    );
    check(
        "[[site]]\nname = 'über'\nhosts = '*.münchen.example'\npreset = 'dotdigitl'\nlanguage = 'EN'\n\
         time_zone = 'Europe/Lodnon'\nnamespace = ''",
        &[
            "2: site[1].name: found \"über\"; allowed: a name of 1 to 64 letters, digits, - _ or .",
            "4: site[1].preset: found \"dotdigitl\"; allowed: \"dotdigital\", \"listmonk\" (did you mean \"dotdigital\"?)",
            "5: site[1].language: found \"EN\"; allowed: \"en\", \"de\", \"fr\", \"es\" (did you mean \"en\"?)",
            "6: site[1].time_zone: found \"Europe/Lodnon\"; allowed: a time zone by its IANA name, such as \
             \"Europe/London\" (did you mean Europe/London?)",
            "7: site[1].namespace: found \"\"; allowed: one line of 1 to 64 characters",
        ],
    );
    check(
        "listen.default_site = 'lsat'",
        &[
            "1: listen.default_site: found \"lsat\", which is no site; allowed: \"last\" (did you mean \"last\"?)",
        ],
    );
    let faults = Place::new().parse("", &[]).unwrap_err();
    assert_eq!(
        faults,
        [
            "holdfast.toml: site: missing; allowed: at least one [[site]] with its name, hosts, and routes or a preset"
        ]
    );
}

#[test]
fn routes() {
    let site = "[[site]]\nname = 'a'\nhosts = 'a.example.com'\npreset = 'dotdigital'\n";
    let faults = |routes: &str| {
        let found = Place::new().parse(&format!("{site}{routes}"), &[]).err().unwrap_or_default();
        found.into_iter().map(|fault| fault.replace("holdfast.toml:", "")).collect::<Vec<_>>()
    };
    let starts = |found: Vec<String>, expected: &[&str]| {
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}\n{expected}");
        }
    };
    starts(
        faults("[[site.route]]\npath = '/c/{token'\nkind = 'clik'\n"),
        &[
            "6: site[1].route[1].path: found \"/c/{token\": ",
            "7: site[1].route[1].kind: found \"clik\"; allowed: \"click\", \"open\" (did you mean \"click\"?)",
        ],
    );
    // A capture that takes all digits leaves none for what follows.
    starts(
        faults("[[site.route]]\npath = '/c/{token:int}5'"),
        &["6: site[1].route[1].path: found \"/c/{token:int}5\": "],
    );
    starts(
        faults("[[site.route]]\npath = '/c/{id}'"),
        &[
            "5: site[1].route[1].token: found \"/c/{id}\": the path has no capture {token} and token names no other",
        ],
    );
    starts(
        faults("[[site.route]]\npath = '/c/{token}'\ntoken = ['tokn']\nappend = '{token}'"),
        &[
            "7: site[1].route[1].token: found \"/c/{token}\": token names `tokn`, which the path does not capture",
            "8: site[1].route[1].append: found \"{token}\": ",
        ],
    );
    starts(
        faults(
            "[[site.route]]\npath = '/c/{token}'\n[[site.route]]\npath = '/c/{token:int}'\n\
             [[site.route]]\npath = '/{token:alnum}-{b:alnum}-{c:alnum}/o.gif'\nplace = 'after'\n",
        ),
        &[
            "8: site[1].route[2].path: found \"/c/{token:int}\", which is never reached: all its paths belong to \
             \"/c/{token}\" of site[1].route[1]; remove it, or place it before that one",
            "10: site[1].route[3].path: found \"/{token:alnum}-{b:alnum}-{c:alnum}/o.gif\", which is never \
             reached: all its paths belong to \
             \"/{account:alnum}-{campaign:alnum}-{contact:alnum}/o.gif\" of the preset dotdigital; remove it",
        ],
    );
    starts(
        faults("[[site.route]]\npath = '/c/{token}'\nredirect = 301\nunknown = '404'\nimage = 'jpg'\n"),
        &[
            "7: site[1].route[1].redirect: found 301; allowed: 302, 303, 307",
            "8: site[1].route[1].unknown: found \"404\"; allowed: 404, 400",
            "9: site[1].route[1].image: found \"jpg\"; allowed: \"gif\", \"png\"",
        ],
    );
    let text = format!("{site}[[site.route]]\npath = '/{{token:rest}}'\nkind = 'open'\nplace = 'after'\n");
    let config = Place::new().parse(&text, &[]).unwrap();
    let kinds: Vec<Kind> = config.sites[0].routes.iter().map(Route::kind).collect();
    assert_eq!(kinds, [Kind::Click, Kind::Open, Kind::Click, Kind::Open, Kind::Open]);
}

#[test]
fn brands() {
    let place = Place::new()
        .with("big.svg", format!("<svg>{}", " ".repeat(40_000)))
        .with("logo.gif", "GIF89a")
        .with("logo.svg", "<svg xmlns='http://www.w3.org/2000/svg'/>");
    let site = |brand: &str| format!("{SITE}[site.brand]\n{brand}");
    for (brand, expected) in [
        (
            "colour = 'red'",
            "7: site[1].brand.colour: found \"red\"; allowed: # and three or six hexadecimal digits, such as \"#1f6feb\"",
        ),
        ("logo = 'big.svg'", "7: site[1].brand.logo: \"big.svg\" is too big; allowed: at most 32KiB"),
        (
            "logo = 'logo.gif'",
            "7: site[1].brand.logo: \"logo.gif\" is neither SVG nor PNG; name an SVG or PNG file",
        ),
        (
            "logo = 'data'",
            "7: site[1].brand.logo: \"data\" cannot be read: is a directory; make data a file that this user may read",
        ),
        (
            "name = \"a\\u0000\"",
            "7: site[1].brand.name: found \"a\\0\"; allowed: one line of 1 to 64 characters",
        ),
    ] {
        let faults = place.parse(&site(brand), &[]).unwrap_err();
        assert_eq!(faults, [format!("holdfast.toml:{expected}")], "{brand}");
    }
    let config = place.parse(&site("logo = 'logo.svg'\ncolour = '#f00'\nname = 'Ä & Co'"), &[]).unwrap();
    let brand = &config.sites[0].brand;
    assert!(brand.logo.is_some());
    assert_eq!((brand.colour.to_string().as_str(), brand.name.as_str()), ("#ff0000", "Ä & Co"));
}

#[test]
fn windows() {
    let moment = "a local time with its zone, such as \"2012-07-14T11:00[Europe/London]\"";
    check(
        "[[window]]\nfrom = '2012-07-14T15:00[Europe/London]'\nuntil = '2012-07-14T15:00[Europe/Paris]'\n\
         [[window]]\nof = 'upstream'\nfrom = 2012-07-14T11:00:00\nuntil = '2012-07-14T11:00[Europe/Lndon]'\n\
         [[window]]\nfrom = '2012-07-14T11:00'",
        &[
            "3: window[1].until: found a time that is not after from; allowed: a time after from",
            "5: window[2].of: found \"upstream\"; allowed: \"database\"",
            &format!("6: window[2].from: found 2012-07-14T11:00:00; allowed: {moment}"),
            &format!(
                "7: window[2].until: found \"2012-07-14T11:00[Europe/Lndon]\", whose time zone is not known (did \
                 you mean Europe/London?); allowed: {moment}"
            ),
            &format!("8: window[3].until: missing; allowed: {moment}"),
            &format!(
                "9: window[3].from: found \"2012-07-14T11:00\", which names no time zone; allowed: {moment}"
            ),
        ],
    );
    let text =
        "[[window]]\nfrom = '2012-07-14T11:00[Europe/London]'\nuntil = '2012-07-14T15:00[Europe/London]'";
    let config = Place::new().parse(&format!("{text}{SITE}"), &[]).unwrap();
    let (from, until) = (UnixMillis(1_342_260_000_000), UnixMillis(1_342_274_400_000));
    let window = Window::new(Part::Database, from, until, "").unwrap();
    assert_eq!(config.windows, [window]);
}

#[test]
fn settings_that_contradict_each_other() {
    check(
        "[listen]\ndrain_min = '31s'\n[journal]\nsegment = '1GiB'\nbytes_max = '1GiB'\npace = '50ms'\nwait_ms_max = 20",
        &[
            "1: listen.drain_max: found 30s; allowed: drain_min, which is 31s, or more",
            "5: journal.bytes_max: found 1GiB, which is too little for the segments; allowed: at least 4GiB, which is segment × (spare_segments + 2)",
            "6: journal.pace: found 50ms; allowed: at most wait_ms_max, which is 20ms, or no answer is synced",
        ],
    );
}

#[test]
fn folders() {
    check(
        "data = 'none'",
        &["1: data: \"none\" does not exist; make the folder none, or run `holdfast init`"],
    );
    check("data = 'token'", &["1: data: \"token\" is not a folder; make token a folder"]);
}

#[test]
fn files_that_cannot_be_read() {
    let place = Place::new().with("bytes.toml", b"edge = 'a'\n\xff\n");
    let load = |name: &str| place.shown(&load(&place.file(name), &[]).unwrap_err());
    assert_eq!(
        load("bytes.toml"),
        ["bytes.toml: found bytes that are not UTF-8 in line 2; allowed: text in UTF-8"]
    );
    assert_eq!(
        load("none.toml"),
        [
            "none.toml: cannot be read: no such file or directory; name it with --config, or make one with `holdfast init`"
        ]
    );
    assert_eq!(
        load("data"),
        ["data: cannot be read: is a directory; make data a file that this user may read"]
    );
}

#[test]
fn every_fault_is_found_at_once_in_the_order_of_the_file() {
    let text = "\
edge = 'an edge'
data = 'nowhere'
colour = 'red'
[listen]
http = ['localhost:80']
threads = 'many'
default_site = 'shop'
[database]
url = 'mysql:x'
pol = '1s'
[journal]
mode = 'fast'
segment = 64
bytes_max = '1GiB'
broken
[privacy]
address = true
[[site]]
name = 'shop'
hosts = ['a_b.example.com', 'a/b']
time_zone = 'Mars'
[site.brand]
colour = '#12345'
[[site.route]]
path = 'c/{token}'
[[site]]
name = 'shop'
hosts = ['a_b.example.com']
preset = 'none'
[[window]]
from = 'today'
until = 'tomorrow'
";
    let place = Place::new();
    let env = owned(&[("HOLDFAST__LOG__LEVEL", "loud"), ("HOLDFAST__LINKS__DROPMAX", "5%"), ("HOME", "/")]);
    let faults = parse(text, &place.file("holdfast.toml"), &env).unwrap_err();
    let lines: Vec<u32> = faults.iter().filter_map(Fault::line).collect();
    assert_eq!(lines, [1, 2, 3, 5, 6, 9, 10, 12, 13, 15, 17, 20, 21, 23, 25, 27, 28, 29, 31, 32]);
    let env: Vec<String> = place.shown(&faults[lines.len()..]);
    assert_eq!(
        env,
        [
            "environment HOLDFAST__LINKS__DROPMAX: links.dropmax: unknown setting; did you mean \
             HOLDFAST__LINKS__DROP_MAX?",
            "environment HOLDFAST__LOG__LEVEL: log.level: found \"loud\"; allowed: \"error\", \"warn\", \"info\", \"debug\"",
        ]
    );
    for fault in &faults {
        assert!(!fault.found.is_empty() && !fault.advice.is_empty(), "{fault}");
    }
}

#[test]
fn variables_count_instead_of_the_file() {
    let env = [
        ("HOLDFAST__EDGE", "42"),
        ("HOLDFAST__LISTEN__HTTP", "127.0.0.1:80, [::1]:80"),
        ("HOLDFAST__LISTEN__THREADS", "0x2"),
        ("HOLDFAST__LISTEN__DEFAULT_SITE", "\"last\""),
        ("HOLDFAST__JOURNAL", "{ mode = 'process', pace = '1ms' }"),
        ("HOLDFAST__JOURNAL__PACE", "2ms"),
        ("HOLDFAST__RECORD__URL", "true"),
        ("HOLDFAST__SITE__LAST__HOSTS", "['one.example.com', 'two.example.com']"),
        ("HOLDFAST__SITE__1__BRAND__NAME", "Last & Co"),
        ("HOLDFAST__WINDOW__1__REASON", ""),
        ("HOLDFAST_UNLIKE", "not ours"),
        ("holdfast__edge", "not ours"),
    ];
    let text = format!(
        "edge = 'file'\nlisten = {{ http = 'bad', threads = 9 }}\n[[window]]\nreason = 'x'\n\
         from = '2012-07-14T11:00[UTC]'\nuntil = '2012-07-14T12:00[UTC]'{SITE}"
    );
    let config = Place::new().parse(&text, &env).unwrap();
    assert_eq!(config.edge, "42");
    assert_eq!(config.listen.http.len(), 2);
    assert_eq!(config.listen.threads, 2);
    assert_eq!(config.listen.default_site.as_deref(), Some("last"));
    assert_eq!(
        (config.journal.recorder.mode, config.journal.store.pace),
        (Mode::Process, Duration::from_millis(2))
    );
    assert!(config.record.url);
    assert_eq!(config.sites[0].hosts.len(), 2);
    assert_eq!(config.sites[0].brand.name, "Last & Co");
    assert_eq!(config.windows[0].reason(), "");
}

#[test]
fn variables_alone_make_a_site() {
    let site = "[{ name = 'a', hosts = ['a.example.com'], route = [{ path = '/{token}' }] }]";
    let config = Place::new().parse("", &[("HOLDFAST__SITE", site)]).unwrap();
    assert_eq!(config.sites[0].name, "a");
}

#[test]
fn wrong_variables() {
    let named = |name: &str, rest: &str| format!("environment {name}: {rest}");
    for (name, value, expected) in [
        ("HOLDFAST__LISTN__HTTP", "x", "listn.http: unknown setting; did you mean HOLDFAST__LISTEN__HTTP?"),
        ("HOLDFAST__LISTEN__HTPP", "x", "listen.htpp: unknown setting; did you mean HOLDFAST__LISTEN__HTTP?"),
        ("HOLDFAST__DATA_", "x", "data_: unknown setting; did you mean HOLDFAST__DATA?"),
        (
            "HOLDFAST__ADMIN__TOKEN",
            "s3cr3t",
            "admin.token: unknown setting; allowed in admin: listen, token_file",
        ),
        (
            "HOLDFAST__LISTEN__THREADS",
            "many",
            "listen.threads: found \"many\"; allowed: a whole number from 0 to 1024",
        ),
        (
            "HOLDFAST__SITE__LSAT__HOSTS",
            "x",
            "site: found no entry called \"lsat\"; allowed: LAST, or a number from 1 to 1 (did you mean LAST?)",
        ),
        (
            "HOLDFAST__SITE__2__HOSTS",
            "x",
            "site: found no entry called \"2\"; allowed: LAST, or a number from 1 to 1",
        ),
        (
            "HOLDFAST__SITE__LAST",
            "x",
            "site: found no setting after the entry's name; allowed: HOLDFAST__SITE__LAST__SETTING",
        ),
        (
            "HOLDFAST__WINDOW__1__UNTIL",
            "x",
            "window: found no [[window]] in the file; write it there, or set HOLDFAST__WINDOW to [{ … }]",
        ),
        (
            "HOLDFAST____X",
            "x",
            "found a name that cannot be one of a setting; allowed: names of tables and settings, such as \
             HOLDFAST__LISTEN__HTTP",
        ),
    ] {
        check_env("", &[(name, value)], &[&named(name, expected)]);
    }
}

#[test]
fn a_reload_keeps_what_only_a_start_can_change() {
    let place = Place::new().with("holdfast.toml", SITE);
    let path = place.file("holdfast.toml");
    let running = load(&path, &[]).unwrap();
    let try_reload = |text: String| {
        fs::write(&path, text).unwrap();
        reload(&path, &[], &running)
    };
    let config = try_reload(format!("[limits]\nretry_after = '1m'{SITE}")).unwrap();
    assert_eq!(running.listing.changes(&config.listing), ["limits.retry_after"]);
    assert!(restart_needed(&running, &config).is_empty());
    // The same in other words is no change.
    assert!(try_reload(format!("journal.retain = '168h'{SITE}")).is_ok());
    let faults =
        try_reload(format!("[limits]\nretry_after = '1m'\n[journal]\nmode = 'process'{SITE}")).unwrap_err();
    assert_eq!(
        place.shown(&faults),
        [
            "holdfast.toml:4: journal.mode: found \"process\", running with \"power\"; it takes effect at a start \
          only: restart, or put the old value back to reload the rest"
        ]
    );
}

#[test]
fn the_effective_configuration_is_one() {
    let place = Place::new();
    let text = format!(
        "[[window]]\nfrom = '2012-07-14T11:00[UTC]'\nuntil = '2012-07-14T12:00[UTC]'\nreason = \"it's \\\"new\\\"\"\n\
         [[site]]\nname = 'b'\nhosts = '*.b.example'\n[[site.route]]\npath = '/{{token:rest}}'{SITE}"
    );
    let config = place.parse(&text, &[("HOLDFAST__LINKS__MISS_TTL", "7s")]).unwrap();
    let printed = config.effective_toml();
    assert!(printed.contains("miss_ttl = \"7s\" # HOLDFAST__LINKS__MISS_TTL\n"), "{printed}");
    assert!(printed.contains("name = \"b\" # line 6\n"), "{printed}");
    let again = place.parse(&printed, &[]).unwrap_or_else(|faults| panic!("{faults:#?}\n{printed}"));
    assert_eq!(config.listing.changes(&again.listing), [""; 0], "{printed}");
}

const DOCUMENTED: &str = include_str!("../../../docs/holdfast.toml");

/// The documented file with the settings that are commented out in it.
fn uncommented() -> String {
    let setting = |line: &str| {
        line.strip_prefix('#')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
    };
    DOCUMENTED
        .lines()
        .map(|line| if setting(line) { &line[1..] } else { line })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_documented_file_is_a_configuration() {
    let config = Place::new().parse(DOCUMENTED, &[]).unwrap_or_else(|faults| panic!("{faults:#?}"));
    assert_eq!(config.sites.len(), 1);
    assert!(config.windows.is_empty());
}

#[test]
fn the_documented_file_has_every_setting_with_its_default() {
    let config = Place::new().parse(&uncommented(), &[]).unwrap_or_else(|faults| panic!("{faults:#?}"));
    for setting in config.listing.settings() {
        assert!(setting.origin.is_some(), "{} is not in docs/holdfast.toml", setting.name());
        // The default is the name of whatever machine this is.
        if setting.name() != "edge" {
            let default = setting.default.as_ref().unwrap_or(&setting.value);
            assert_eq!(setting.value, *default, "{} in docs/holdfast.toml", setting.name());
        }
    }
}

#[test]
fn the_documented_file_marks_what_counts_at_start_only() {
    let (mut table, mut marked, mut documented) = (String::new(), false, Vec::new());
    for line in uncommented().lines() {
        match line.split_once(" = ") {
            _ if line.is_empty() => marked = false,
            _ if line.starts_with('#') => marked |= line.contains("[start]"),
            _ if line.starts_with('[') => table = format!("{}.", line.trim_matches(['[', ']'])),
            Some((key, _)) if marked => documented.push(format!("{table}{key}")),
            _ => {}
        }
    }
    assert_eq!(documented, START_ONLY);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_text_is_a_configuration_or_has_faults(text in "\\PC{0,200}(\n\\PC{0,40}){0,8}") {
        let _ = parse(&text, Path::new("holdfast.toml"), &[]);
    }

    #[test]
    fn a_damaged_file_never_panics(cuts in proptest::collection::vec((0_usize..14_000, "[\\[\\]=\"'{}.#\n0a \u{e4}]{0,3}"), 1..6)) {
        let mut text = uncommented();
        for (at, put) in cuts {
            let at = (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            let end = (at + 5..=text.len()).find(|&end| text.is_char_boundary(end)).unwrap_or(text.len());
            text.replace_range(at..end.max(at), &put);
        }
        let lines = text.split('\n').count() as u32;
        if let Err(faults) = parse(&text, Path::new("holdfast.toml"), &[]) {
            prop_assert!(!faults.is_empty());
            prop_assert!(faults.iter().all(|fault| fault.line().is_none_or(|line| (1..=lines).contains(&line))));
        }
    }

    #[test]
    fn any_variable_is_taken_or_has_a_fault(name in "[A-Z_1]{0,30}", value in "\\PC{0,40}") {
        let _ = parse(SITE, Path::new("holdfast.toml"), &owned(&[(&format!("HOLDFAST__{name}"), &value)]));
    }
}

#[test]
fn endless_keys_are_refused() {
    for text in [
        format!("{} = 1", ["a"; 100_000].join(".")),
        format!("[{}]", ["a"; 100_000].join(".")),
        "[".repeat(100_000),
        "a = ".to_owned() + &"[".repeat(100_000),
    ] {
        assert!(Place::new().parse(&text, &[]).is_err());
    }
}
