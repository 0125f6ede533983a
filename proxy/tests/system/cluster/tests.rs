//! The servers of the tests do what the tests believe of them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use super::{Cluster, Pooler, Wire};

#[test]
fn a_cluster_is_started_killed_frozen_copied_and_promoted() {
    let mut cluster = Cluster::start();
    assert_eq!(cluster.sql("select current_user"), "postgres");
    cluster.sql("create table t(n int); insert into t values (1)");
    let replica = cluster.replica();
    cluster.kill();
    cluster.run();
    assert_eq!(cluster.count("select n from t"), 1);
    cluster.freeze();
    cluster.thaw();
    let other = Cluster::start_another();
    other.restore(&cluster.dump(&[]), &[]);
    assert_eq!(other.count("select n from t"), 1);
    let id = "select system_identifier from pg_control_system()";
    assert_ne!(other.sql(id), cluster.sql(id));
    let lock = cluster.hold("lock table t");
    assert_eq!(cluster.count("select count(*) from pg_locks where mode = 'AccessExclusiveLock'"), 1);
    drop(lock);
    cluster.wait_count("select count(*) from pg_locks where mode = 'AccessExclusiveLock'", 0);
    assert!(cluster.connections().is_empty());
    replica.promote();
    replica.sql("insert into t values (2)");
    let left = cluster.processes(cluster.pid());
    drop(cluster);
    assert!(left.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()), "{left:?}");
}

#[test]
fn all_connections_can_be_taken() {
    let cluster = Cluster::start();
    let others = cluster.occupy();
    let refused = cluster.psql_as("occupier", "postgres", "select 1");
    assert!(!refused.status.success(), "one was free");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("connection slots"), "{refused:?}");
    drop(others);
    assert!(cluster.psql_as("occupier", "postgres", "select 1").status.success());
}

#[test]
fn a_copy_of_the_server_can_be_put_back() {
    let mut cluster = Cluster::start();
    cluster.sql("create table t(n int)");
    cluster.snapshot();
    let transaction = "select pg_current_xact_id()";
    let before = cluster.count(transaction);
    cluster.age();
    cluster.sql("drop table t");
    assert!(cluster.count(transaction) > before + 20_000);
    cluster.put_back();
    assert_eq!(cluster.count("select count(*) from t"), 0);
    assert!(cluster.count(transaction) < before + 1_000);
}

#[test]
fn a_network_is_cut_and_mended() {
    let cluster = Cluster::start();
    let wire = Wire::to(&cluster);
    // The server's answer to the question for TLS is one letter.
    let ask = || {
        let address = wire.url(&cluster);
        let address = address.split('@').nth(1).and_then(|rest| rest.split('/').next()).unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
        stream.read(&mut [0]).is_ok_and(|read| read == 1)
    };
    assert!(ask());
    wire.cut();
    assert!(!ask());
    wire.mend();
    assert!(ask());
}

#[test]
fn a_pooler_takes_connections() {
    let cluster = Cluster::start();
    let pooler = Pooler::before(&cluster);
    let output = std::process::Command::new("psql").args([&pooler.url(), "-c", "select 1"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
