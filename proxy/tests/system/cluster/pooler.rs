//! A real PgBouncer in transaction mode before a server: each transaction may meet another connection.

use std::fs;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::programs::{as_user, give};
use super::{Cluster, PASSWORD, Port, USER};
use crate::edge::wait_for;

/// A running pooler; it ends when it is dropped.
pub struct Pooler {
    scratch: TempDir,
    port: Port,
    child: Child,
}

impl Pooler {
    /// Two connections to the server for however many clients.
    pub fn before(cluster: &Cluster) -> Self {
        let scratch = tempfile::tempdir().expect("scratch folder");
        let port = Port::free();
        let folder = scratch.path().display();
        let settings = format!(
            "[databases]\n\
             holdfast = host=127.0.0.1 port={} dbname=holdfast\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {}\n\
             unix_socket_dir = {folder}\n\
             auth_type = scram-sha-256\n\
             auth_file = {folder}/users\n\
             pool_mode = transaction\n\
             default_pool_size = 2\n",
            cluster.port(),
            port.number,
        );
        fs::write(scratch.path().join("pgbouncer.ini"), settings).expect("settings");
        fs::write(scratch.path().join("users"), format!("\"{USER}\" \"{PASSWORD}\"\n")).expect("users");
        give(scratch.path());
        let log = fs::File::create(scratch.path().join("log")).expect("log");
        let path = std::env::var("PATH").unwrap_or_default();
        let child = as_user(Command::new("pgbouncer"))
            .arg(scratch.path().join("pgbouncer.ini"))
            .env("PATH", format!("{path}:/usr/sbin"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("pgbouncer starts; it is Debian's package pgbouncer");
        let mut pooler = Self { scratch, port, child };
        wait_for("the pooler", || {
            let ended = pooler.child.try_wait().expect("pgbouncer");
            assert!(ended.is_none(), "{}", fs::read_to_string(pooler.scratch.path().join("log")).unwrap());
            std::net::TcpStream::connect(("127.0.0.1", pooler.port.number)).ok()
        });
        pooler
    }

    /// Where an edge finds the database through it.
    pub fn url(&self) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/holdfast", self.port.number)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
