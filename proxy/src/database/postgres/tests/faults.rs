//! What happens to servers: each fault ends a call in time, says what to do, and is over when it is over.

use super::*;

/// The longest that one call may take: the bound, its grace, and a busy machine.
const SOON: Duration = Duration::from_secs(3);

fn timed<T>(call: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = call();
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    done
}

#[test]
fn a_server_that_is_stopped_ends_calls_and_comes_back() {
    let mut fixture = Fixture::with_links(10);
    let mut database = fixture.open(Access::ReadOnly);
    assert!(database.lookup(b"acme", b"token-1").unwrap().is_some());
    fixture.cluster.freeze(true);
    assert!(matches!(timed(|| database.lookup(b"acme", b"token-1")), Err(Error::Unavailable(_))));
    assert!(matches!(timed(|| database.changed()), Err(Error::Unavailable(_))), "the connection is given up");
    assert!(matches!(timed(|| fixture.try_open(Access::ReadOnly)), Err(Error::Unavailable(_))));
    timed(|| drop(database));
    fixture.cluster.freeze(false);
    assert_eq!(load(&mut fixture.open(Access::ReadOnly)).unwrap(), 10);
    let mut database = fixture.open(Access::ReadOnly);
    fixture.cluster.kill();
    assert!(matches!(timed(|| database.changed()), Err(Error::Unavailable(_))));
    assert!(matches!(timed(|| fixture.try_open(Access::ReadOnly)), Err(Error::Unavailable(_))));
    fixture.cluster.up();
    assert_eq!(load(&mut fixture.open(Access::ReadOnly)).unwrap(), 10);
}

#[test]
fn a_load_may_take_long_but_not_without_a_row() {
    let fixture = Fixture::with_links(2000);
    fixture.sql("UPDATE holdfast.links SET url = repeat('x', 4000)");
    let mut database = fixture.open(Access::ReadOnly);
    let mut rows = 0;
    let ended = database.load(&mut |_| {
        rows += 1;
        if rows == 10 {
            fixture.cluster.freeze(true);
        }
        Ok(())
    });
    fixture.cluster.freeze(false);
    assert!(matches!(ended, Err(Error::Unavailable(_))), "{ended:?} after {rows} rows");
    let mut slow = 0;
    let loaded = fixture.open(Access::ReadOnly).load(&mut |_| {
        slow += 1;
        if slow % 500 == 0 {
            crate::database::tests::cluster::pause(TIMEOUT / 2);
        }
        Ok(())
    });
    assert_eq!(loaded.unwrap().rows, 2000, "in all it took longer than a statement may");
}

#[test]
fn a_lock_is_waited_for_and_then_told() {
    let fixture = Fixture::with_links(10);
    let holder = fixture.open(Access::ReadWrite);
    let mut database = fixture.open(Access::ReadOnly);
    holder
        .connection
        .run("test", async |talk| {
            talk.batch("BEGIN; LOCK TABLE holdfast.links IN ACCESS EXCLUSIVE MODE").await
        })
        .unwrap();
    let error = timed(|| database.lookup(b"acme", b"token-1")).unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)) && error.to_string().contains("lock"), "{error}");
    drop(holder);
    assert!(database.lookup(b"acme", b"token-1").unwrap().is_some(), "the connection is as good as before");
}

#[test]
fn a_password_a_table_and_a_role_that_changed_say_what_to_do() {
    let fixture = Fixture::with_links(10);
    let hba = fixture.cluster.data().join("pg_hba.conf");
    let text = |error: Error| crate::causes::chain(&error);
    fixture.sql("CREATE ROLE edge LOGIN PASSWORD 'right'; GRANT USAGE ON SCHEMA holdfast TO edge");
    std::fs::write(hba, "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n").unwrap();
    fixture.sql("SELECT pg_reload_conf()");
    let url = format!("postgres://edge:wrong@127.0.0.1:{}/postgres", fixture.cluster.port());
    let settings = Settings::parse(&url, |file| file.into()).unwrap();
    let error = text(open(&settings, Access::ReadOnly, TIMEOUT).unwrap_err());
    assert!(error.contains("password_file") && !error.contains("wrong"), "{error}");
    let settings = settings.with_password("right");
    let error = text(open(&settings, Access::ReadOnly, TIMEOUT).unwrap_err());
    assert!(error.contains("lacks a right"), "{error}");
    fixture.sql("GRANT SELECT ON ALL TABLES IN SCHEMA holdfast TO edge");
    let mut database = open(&settings, Access::ReadOnly, TIMEOUT).unwrap();
    assert_eq!(load(&mut database).unwrap(), 10);
    fixture.sql("DROP TABLE holdfast.links");
    assert!(matches!(load(&mut database), Err(Error::NotOurs(_))));
}

#[test]
fn without_a_connection_left_it_says_so() {
    let fixture = Fixture::with_links(1);
    fixture.sql("ALTER ROLE postgres CONNECTION LIMIT 1; CREATE ROLE edge LOGIN CONNECTION LIMIT 1; GRANT ALL ON SCHEMA holdfast TO edge; GRANT ALL ON ALL TABLES IN SCHEMA holdfast TO edge");
    let url = format!("postgres://edge@127.0.0.1:{}/postgres", fixture.cluster.port());
    let settings = Settings::parse(&url, |file| file.into()).unwrap();
    let _first = open(&settings, Access::ReadOnly, TIMEOUT).unwrap();
    let error = open(&settings, Access::ReadOnly, TIMEOUT).unwrap_err();
    assert!(
        matches!(error, Error::Unavailable(_)) && error.to_string().contains("max_connections"),
        "{error}"
    );
}

#[test]
fn the_next_server_is_tried_and_a_standby_takes_no_writes() {
    let fixture = Fixture::with_links(10);
    let port = fixture.cluster.port();
    let hosts = format!("postgres://postgres@127.0.0.1:1,127.0.0.1:{port}/postgres");
    let settings = Settings::parse(&hosts, |file| file.into()).unwrap();
    assert_eq!(load(&mut open(&settings, Access::ReadOnly, TIMEOUT).unwrap()).unwrap(), 10);
    fixture.sql("ALTER SYSTEM SET default_transaction_read_only = on");
    fixture.sql("SELECT pg_reload_conf()");
    let error =
        open(&fixture.cluster.settings("target_session_attrs=read-write"), Access::ReadWrite, TIMEOUT);
    assert!(matches!(error, Err(Error::Unavailable(_))), "{error:?}");
    let mut database = fixture.open(Access::ReadWrite);
    let error = database.import(&[link("a", "https://example.com/")]).unwrap_err();
    assert!(
        matches!(error, Error::Unavailable(_)) && error.to_string().contains("takes no writes"),
        "{error}"
    );
}
