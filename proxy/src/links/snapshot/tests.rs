//! Damage of every kind: noticed, set aside, and the generation before it used.

use std::sync::Arc;
use std::time::Duration;

use super::super::builder::{Builder, Settings};
use super::super::{Links, Row, State, guard};
use super::*;

fn table(namespaces: &Namespaces, url: &str) -> Table {
    let guard = guard::Settings { forget_after: Duration::from_secs(1), drop_max_ppm: 0 };
    let settings = Settings { seed: 9, memory_bytes_max: 1 << 20, looked_up_max: 0, guard };
    let mut builder = Builder::new(Links::empty(0), namespaces.clone(), settings);
    for n in 0..5u8 {
        let row = Row {
            namespace: b"brand",
            token: &[b't', n],
            url,
            campaign: b"spring",
            append: true,
            expires_at: Some(UnixMillis(77)),
            state: State::Live,
        };
        builder.push(&row).unwrap();
    }
    builder.finish(UnixMillis(1000)).unwrap().table
}

struct Disk {
    folder: tempfile::TempDir,
    namespaces: Namespaces,
    meta: Meta,
}

impl Disk {
    fn new() -> Self {
        let meta = Meta { watermark: i64::MIN, database: "a database".to_owned() };
        Self { folder: tempfile::tempdir().unwrap(), namespaces: Namespaces::default(), meta }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, generation: u64) -> PathBuf {
        let table = table(&self.namespaces, &format!("https://example.com/{generation}"));
        write(self.path(), generation, &table, &self.meta).unwrap().path
    }

    fn load(&self) -> Recovered {
        load(self.path(), &self.namespaces, Damaged::SetAside).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Puts `bytes` in the place of generation 2 and expects it to be set aside for generation 1.
    #[track_caller]
    fn check_damaged(&self, path: &Path, bytes: &[u8], what: &dyn fmt::Debug) {
        fs::write(path, bytes).unwrap();
        let found = self.load();
        assert_eq!(found.loaded.as_ref().map(|loaded| loaded.generation), Some(1), "{what:?}");
        let [Fault { reason: Unusable::Damaged(_), set_aside: Some(aside), .. }] = &found.faults[..] else {
            panic!("{what:?}: {:?}", found.faults);
        };
        assert_eq!(fs::read(aside).unwrap(), bytes);
    }
}

#[test]
fn whoever_only_looks_leaves_a_damaged_snapshot_where_it_is() {
    let disk = Disk::new();
    let path = disk.path().join(file_name(1));
    fs::write(&path, b"HFLINKS?").unwrap();
    let found = load(disk.path(), &disk.namespaces, Damaged::Leave).unwrap();
    assert!(matches!(found.faults[..], [Fault { reason: Unusable::Damaged(_), set_aside: None, .. }]));
    assert!(path.exists());
}

#[test]
fn a_snapshot_reads_as_it_was_written() {
    let disk = Disk::new();
    assert!(disk.load().loaded.is_none());
    disk.write(7);
    let loaded = disk.load().loaded.unwrap();
    assert_eq!((loaded.generation, &loaded.meta), (7, &disk.meta));
    assert_eq!(loaded.table.parts, table(&disk.namespaces, "https://example.com/7").parts);
    assert_eq!(loaded.table.made_at(), UnixMillis(1000));
    assert_eq!(newest_generation(disk.path()).unwrap(), 7);
    let links = Links::new(Arc::new(loaded.table), super::super::overlay::Overlay::new(0));
    assert!(links.get(disk.namespaces.find(b"brand").unwrap(), b"t\x03").is_some());
}

#[test]
fn a_folder_that_does_not_exist_holds_nothing() {
    let disk = Disk::new();
    let folder = disk.path().join("none");
    assert!(load(&folder, &disk.namespaces, Damaged::SetAside).unwrap().loaded.is_none());
    assert_eq!(newest_generation(&folder).unwrap(), 0);
    let table = table(&disk.namespaces, "https://example.com/");
    let error = write(&folder, 1, &table, &disk.meta).unwrap_err();
    assert!(error.to_string().starts_with("cannot write "), "{error}");
}

#[test]
fn the_empty_table_has_a_snapshot_too() {
    let disk = Disk::new();
    write(disk.path(), 1, &Table::default(), &Meta::default()).unwrap();
    assert_eq!(disk.load().loaded.unwrap().table.parts, Parts::default());
}

#[test]
fn every_single_bit_is_covered() {
    let disk = Disk::new();
    disk.write(1);
    let path = disk.write(2);
    let good = fs::read(&path).unwrap();
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        disk.check_damaged(&path, &bytes, &bit);
    }
    fs::write(&path, good).unwrap();
    assert_eq!(disk.load().loaded.unwrap().generation, 2);
}

#[test]
fn every_other_length_is_noticed() {
    let disk = Disk::new();
    disk.write(1);
    let path = disk.write(2);
    let good = fs::read(&path).unwrap();
    for length in 0..good.len() {
        disk.check_damaged(&path, &good[..length], &length);
    }
    disk.check_damaged(&path, &[&good[..], &[0]].concat(), &"longer");
    disk.check_damaged(&path, &vec![0; good.len()], &"zeros");
    disk.check_damaged(&path, &fs::read(disk.path().join("table-1.links")).unwrap(), &"renamed");
}

#[test]
fn a_header_that_promises_the_world_allocates_nothing() {
    let disk = Disk::new();
    disk.write(1);
    let path = disk.write(2);
    let mut bytes = fs::read(&path).unwrap();
    for section in 0..SECTIONS {
        bytes[104 + section * 16..][..8].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
    }
    let checksum = crc32c(&bytes[..HEADER_BYTES - 4]);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    disk.check_damaged(&path, &bytes, &"lengths");
}

#[test]
fn a_later_release_is_left_alone() {
    let disk = Disk::new();
    disk.write(1);
    let path = disk.write(2);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    let checksum = crc32c(&bytes[..HEADER_BYTES - 4]);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    let found = disk.load();
    assert_eq!(found.loaded.unwrap().generation, 1);
    assert!(matches!(
        found.faults[..],
        [Fault { reason: Unusable::Later { version: 2 }, set_aside: None, .. }]
    ));
    assert!(path.exists());
}

#[test]
fn an_unreadable_file_is_left_alone() {
    let disk = Disk::new();
    disk.write(1);
    fs::create_dir(disk.path().join("table-2.links")).unwrap();
    let found = disk.load();
    assert_eq!(found.loaded.unwrap().generation, 1);
    assert!(matches!(found.faults[..], [Fault { reason: Unusable::Unreadable(_), set_aside: None, .. }]));
}

#[test]
fn the_generation_before_is_kept_with_its_logs() {
    let disk = Disk::new();
    for generation in [1, 2, 5] {
        log::Log::create(disk.path(), generation).unwrap();
        disk.write(generation);
        fs::write(disk.path().join(format!("table-{generation}.links.1.tmp")), b"cut short").unwrap();
    }
    log::Log::create(disk.path(), 6).unwrap();
    assert_eq!(
        disk.names(),
        [
            "links-2.log",
            "links-5.log",
            "links-6.log",
            "table-2.links",
            "table-5.links",
            "table-5.links.1.tmp"
        ]
    );
    assert_eq!(newest_generation(disk.path()).unwrap(), 6);
}

#[test]
fn a_generation_is_written_once() {
    let disk = Disk::new();
    let path = disk.write(1);
    let before = fs::read(&path).unwrap();
    let other = table(&disk.namespaces, "https://example.org/");
    assert!(write(disk.path(), 1, &other, &disk.meta).is_err());
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(disk.names(), ["table-1.links"]);
}

/// The checksums hold, but the table inside is nonsense: reading finds nothing and does not panic.
#[test]
fn nonsense_under_good_checksums_is_read_without_panic() {
    let namespaces = Namespaces::default();
    let good = table(&namespaces, "https://example.com/?a=b#f");
    let brand = namespaces.find(b"brand").unwrap();
    for part in 0..4 {
        for bit in 0.. {
            let mut parts = good.parts.clone();
            let bytes = [&mut parts.directory, &mut parts.records, &mut parts.campaigns, &mut parts.targets]
                .into_iter()
                .nth(part)
                .unwrap();
            let Some(byte) = bytes.get_mut(bit / 8) else { break };
            *byte ^= 1 << (bit % 8);
            let table = Table::new(parts, Names::of([b"brand"], &namespaces).unwrap());
            for n in 0..5u8 {
                if let Some(super::super::Found::Live(link)) = table.get(brand, &[b't', n]) {
                    link.target.append(&mut Vec::new(), |out| out.push(b'x'));
                }
            }
            assert!(table.iter().count() <= good.parts.records.len());
        }
    }
}
