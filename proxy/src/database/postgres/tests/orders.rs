//! The lock between edges that order certificates: who has a name, for how long, and what is left for the others.

use super::*;
use crate::database::Migrate;

const LEASE: Duration = Duration::from_secs(60);

#[test]
fn a_name_is_one_edges_until_it_is_given_back_or_the_lease_ends() {
    let fixture = Fixture::new();
    let [mut one, mut two] = [(); 2].map(|()| fixture.open(Access::ReadWrite));
    assert!(one.take_order("click.brand.example", "one", LEASE).unwrap());
    assert!(!two.take_order("click.brand.example", "two", LEASE).unwrap());
    assert!(two.take_order("other.brand.example", "two", LEASE).unwrap());
    // The same edge after a restart, and one that had no business to give it back.
    assert!(one.take_order("click.brand.example", "one", LEASE).unwrap());
    two.release_order("click.brand.example", "two").unwrap();
    assert!(!two.take_order("click.brand.example", "two", LEASE).unwrap());
    one.release_order("click.brand.example", "one").unwrap();
    assert!(two.take_order("click.brand.example", "two", Duration::ZERO).unwrap());
    assert!(one.take_order("click.brand.example", "one", LEASE).unwrap(), "that lease had ended");
}

#[test]
fn of_many_edges_at_once_one_gets_it() {
    let fixture = Fixture::new();
    let taken: usize = std::thread::scope(|scope| {
        let edges: Vec<_> = (0..8)
            .map(|edge| {
                let mut database = fixture.open(Access::ReadWrite);
                scope.spawn(move || {
                    let names = (0..20).map(|n| format!("n{n}.brand.example"));
                    names
                        .filter(|name| database.take_order(name, &format!("edge-{edge}"), LEASE).unwrap())
                        .count()
                })
            })
            .collect();
        edges.into_iter().map(|edge| edge.join().unwrap()).sum()
    });
    assert_eq!(taken, 20);
}

#[test]
fn what_is_left_for_a_name_is_found_by_all_and_replaced() {
    let fixture = Fixture::new();
    let [mut one, mut two] = [(); 2].map(|()| fixture.open(Access::ReadWrite));
    assert_eq!(two.shared_certificate("click.brand.example").unwrap(), None);
    assert!(one.take_order("click.brand.example", "one", LEASE).unwrap());
    assert_eq!(two.shared_certificate("click.brand.example").unwrap(), None);
    for sealed in [&b"\0\xffone"[..], b"another"] {
        one.share_certificate("click.brand.example", sealed).unwrap();
        assert_eq!(two.shared_certificate("click.brand.example").unwrap().as_deref(), Some(sealed));
    }
    // What nobody has ordered for longer than any certificate is good goes with the next one.
    fixture.sql("INSERT INTO holdfast.orders VALUES ('gone.example', 'one', now() - interval '2 years', '')");
    one.share_certificate("click.brand.example", b"third").unwrap();
    assert_eq!(fixture.sql("SELECT name FROM holdfast.orders"), "click.brand.example");
}

/// The release before has made the schema, and nobody may change it.
#[test]
fn without_its_table_orders_wait_and_nothing_else_does() {
    let fixture = Fixture::new();
    fixture.sql(
        "DROP TABLE holdfast.orders; ALTER TABLE holdfast.domains DROP COLUMN revision;
         DROP FUNCTION holdfast.domains_bury CASCADE; DROP TRIGGER domains_revise ON holdfast.domains;
         DROP TRIGGER domains_tell ON holdfast.domains; UPDATE holdfast.meta SET value = '1' WHERE key = 'schema'",
    );
    let mut database = fixture.open(Access::ReadWrite);
    assert_eq!(database.migrate(Migrate::Never).unwrap(), 0);
    database.import(&[link("a", "https://example.com/")]).unwrap();
    let Err(Error::NotOurs(fault)) = database.take_order("click.brand.example", "one", LEASE) else {
        panic!("it is taken")
    };
    let said = Error::NotOurs(fault).to_string();
    assert!(said.contains("holdfast migrate"), "{said}");
    // Nor are there domains.
    let unread = database.domains(None, &mut |row| panic!("{row:?}")).unwrap_err();
    for error in [unread.into_error(), database.import_domains(&[]).unwrap_err()] {
        assert!(
            matches!(error, Error::NotOurs(_)) && error.to_string().contains("holdfast migrate"),
            "{error}"
        );
    }
    assert_eq!(database.migrate(Migrate::Auto).unwrap(), 2);
    assert!(database.take_order("click.brand.example", "one", LEASE).unwrap());
}
