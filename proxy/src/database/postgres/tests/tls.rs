//! TLS to a real server, by each of libpq's modes.

use super::*;
use crate::causes::chain;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// A server for `localhost` whose certificate an authority signed; the authority's PEM.
fn encrypted() -> (Fixture, std::path::PathBuf) {
    let fixture = Fixture::with_links(3);
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = authority.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(authority, key);
    let server_key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let server = params.signed_by(&server_key, &issuer).unwrap();
    fixture.cluster.write("data/server.key", &server_key.serialize_pem());
    fixture.cluster.write("data/server.crt", &server.pem());
    fixture.cluster.write("data/pg_hba.conf", "local all all trust\nhostssl all all 127.0.0.1/32 trust\n");
    let roots = fixture.cluster.write("roots.pem", &pem);
    fixture.sql("ALTER SYSTEM SET ssl = on");
    fixture.sql("SELECT pg_reload_conf()");
    (fixture, roots)
}

#[test]
fn the_modes_of_libpq_mean_what_they_say() {
    let (fixture, roots) = encrypted();
    let try_open = |host: &str, query: &str| {
        let url = format!("postgres://postgres@{host}:{}/postgres?{query}", fixture.cluster.port());
        let settings = Settings::parse(&url, |file| file.into()).unwrap();
        open(&settings, Access::ReadOnly, Duration::from_secs(5)).map_err(|error| chain(&error))
    };
    let ours = format!("sslrootcert={}", roots.display());
    // A reload takes a moment.
    for _ in 0..100 {
        if try_open("localhost", "sslmode=require").is_ok() {
            break;
        }
        crate::database::tests::cluster::pause(Duration::from_millis(50));
    }
    for (host, query) in [
        ("localhost", "sslmode=prefer".to_owned()),
        ("127.0.0.1", "sslmode=require".to_owned()),
        ("127.0.0.1", format!("sslmode=verify-ca&{ours}")),
        ("localhost", format!("sslmode=verify-full&{ours}")),
    ] {
        let database = try_open(host, &query).unwrap_or_else(|error| panic!("{host} {query}: {error}"));
        let encrypted = database.connection.run("test", async |talk| {
            let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
            Ok(talk.one(sql, &[]).await?.get::<_, bool>(0))
        });
        assert!(encrypted.unwrap(), "{host} {query}");
    }
    for (host, query, why) in [
        ("127.0.0.1", "sslmode=disable".to_owned(), "no encryption"),
        ("127.0.0.1", format!("sslmode=verify-full&{ours}"), "not valid for"),
        (
            "localhost",
            "sslmode=verify-full&sslrootcert=/etc/ssl/certs/ca-certificates.crt".to_owned(),
            "certificate",
        ),
        ("localhost", "sslmode=verify-ca&sslrootcert=/none.pem".to_owned(), "/none.pem"),
    ] {
        let error = try_open(host, &query).map(drop).unwrap_err();
        assert!(error.contains(why), "{host} {query}: {error}");
    }
}
