//! Holds `docs/journal.md` to the code: its constants, and the place of every field.

use crate::event::UnixMillis;
use crate::journal::frame::{self, HEAD_BYTES, Head, Seeds};
use crate::journal::segment::{self, Form, HEADER_BYTES, Header};
use crate::journal::{JournalId, Sequence, Tag, sealed};

const DOCUMENT: &str = include_str!("../../../../docs/journal.md");

/// The rows of the table under a heading, without its head.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = DOCUMENT.split_once(&format!("## {heading}\n")).expect("the heading is there");
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

#[test]
fn the_constants_are_those_of_the_code() {
    let constants = [
        ("segment format version", u64::from(segment::VERSION)),
        ("frame version", u64::from(frame::VERSION)),
        ("segment header bytes", HEADER_BYTES as u64),
        ("frame header bytes", HEAD_BYTES as u64),
        ("frame alignment bytes", frame::ALIGN_BYTES as u64),
        ("record bytes at most", u64::from(frame::RECORD_BYTES_CAP)),
        ("segment bytes at most", segment::SEGMENT_BYTES_CAP),
        ("edge name bytes at most", segment::EDGE_BYTES_MAX as u64),
        ("block header bytes", sealed::BLOCK_HEAD_BYTES as u64),
        ("block bytes before compression", sealed::BLOCK_BYTES as u64),
        ("trailer bytes", sealed::TRAILER_BYTES as u64),
        ("compression level", u64::from(sealed::LEVEL.unsigned_abs())),
    ];
    let printed: Vec<_> =
        constants.iter().map(|(name, value)| vec![(*name).to_owned(), value.to_string()]).collect();
    assert_eq!(printed, table("Constants"));
}

/// Each field's offset and length; they follow each other and fill the whole.
fn fields(heading: &str, bytes: usize) -> Vec<(usize, usize)> {
    let number = |text: &str| text.parse().expect("a number");
    let fields: Vec<(usize, usize)> =
        table(heading).iter().map(|row| (number(row[0]), number(row[1]))).collect();
    let mut end = 0;
    for &(offset, length) in &fields {
        assert_eq!(offset, end, "{heading}");
        end += length;
    }
    assert_eq!(end, bytes, "{heading}");
    fields
}

fn check(bytes: &[u8], (offset, length): (usize, usize), expected: &[u8]) {
    assert_eq!(&bytes[offset..offset + length], expected, "at {offset}");
}

#[test]
fn a_segment_header_lies_as_the_document_says() {
    let id = JournalId::from_bytes([5; 16]);
    let header = Header {
        id,
        number: 0x0102,
        first: Sequence(0x0304),
        capacity: 0x0506,
        block_bytes: 4096,
        opened_at: UnixMillis(0x0708),
        created_at: UnixMillis(0x090a),
        edge: "e".repeat(64),
    };
    let bytes = header.encode(Form::Log);
    let field = fields("Segment header", HEADER_BYTES);
    check(&bytes, field[0], b"holdfjrn");
    check(&header.encode(Form::Sealed), field[0], b"holdfjrz");
    check(&bytes, field[1], &segment::VERSION.to_le_bytes());
    check(&bytes, field[2], &192u16.to_le_bytes());
    check(&bytes, field[3], &4096u32.to_le_bytes());
    check(&bytes, field[4], id.as_bytes());
    for (at, value) in [(5, 0x0102u64), (6, 0x0304), (7, 0x0506), (8, 0x0708), (9, 0x090a)] {
        check(&bytes, field[at], &value.to_le_bytes());
    }
    check(&bytes, field[10], &[64]);
    check(&bytes, field[11], "e".repeat(64).as_bytes());
    check(&bytes, field[12], &[0; 51]);
    check(&bytes, field[13], &crc32c::crc32c(&bytes[..188]).to_le_bytes());
}

#[test]
fn a_frame_lies_as_the_document_says() {
    let id = JournalId::from_bytes([5; 16]);
    let seeds = Seeds::new(id, 7);
    let seed = crc32c::crc32c(id.as_bytes());
    assert_eq!(seeds, Seeds { payload: seed, head: crc32c::crc32c_append(seed, &7u64.to_le_bytes()) });
    let mut bytes = Vec::new();
    let when = (UnixMillis(0x0102), Tag(0x0304));
    frame::append(&mut bytes, seeds.payload, when, 10, |out| out.extend(b"abc")).unwrap();
    frame::stamp(&mut bytes, Sequence(0x0506), 0x0708, seeds.head);
    let field = fields("Frame", HEAD_BYTES);
    check(&bytes, field[0], &[frame::VERSION]);
    check(&bytes, field[1], &[1]);
    check(&bytes, field[2], b"HJ");
    check(&bytes, field[3], &3u32.to_le_bytes());
    check(&bytes, field[4], &0x0506u64.to_le_bytes());
    check(&bytes, field[5], &0x0102u64.to_le_bytes());
    check(&bytes, field[6], &0x0304u32.to_le_bytes());
    check(&bytes, field[7], &0x0708u32.to_le_bytes());
    check(&bytes, field[8], &crc32c::crc32c_append(seeds.payload, b"abc").to_le_bytes());
    check(&bytes, field[9], &crc32c::crc32c_append(seeds.head, &bytes[..36]).to_le_bytes());
    assert_eq!(&bytes[40..], b"abc\0\0\0\0\0");
    let seal = Head::seal(Sequence(9), UnixMillis(0), 0, seeds);
    check(&seal, field[1], &[2]);
}

#[test]
fn a_block_lies_as_the_document_says() {
    use crate::journal::disk::Disk;
    use crate::journal::sim::SimDisk;
    let disk = SimDisk::new(0);
    let path = std::path::Path::new("/sealed");
    let seeds = Seeds::new(JournalId::from_bytes([5; 16]), 7);
    let file = disk.create(path).unwrap();
    let mut press = sealed::Press::new(&*file, seeds, 1000).unwrap();
    for sequence in 3..5 {
        press.add(sequence, UnixMillis(1000), Tag(2), b"payload").unwrap();
    }
    press.finish(vec![(Tag(2), 14)]).unwrap();
    let bytes = disk.contents(path).unwrap()[HEADER_BYTES..].to_vec();
    let field = fields("Sealed segment", sealed::BLOCK_HEAD_BYTES);
    let stored = &bytes[sealed::BLOCK_HEAD_BYTES..];
    let stored = &stored[..u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize];
    let raw = zstd::bulk::decompress(stored, 1000).unwrap();
    check(&bytes, field[0], b"HJBK");
    check(&bytes, field[2], &u32::try_from(raw.len()).unwrap().to_le_bytes());
    check(&bytes, field[3], &2u32.to_le_bytes());
    check(&bytes, field[4], &3u64.to_le_bytes());
    check(&bytes, field[5], &crc32c::crc32c_append(seeds.payload, stored).to_le_bytes());
    check(&bytes, field[6], &crc32c::crc32c_append(seeds.head, &bytes[..28]).to_le_bytes());
    // Times 1000 and a difference of 0, two tags, two lengths, the payloads.
    assert_eq!(raw, [&[0xd0, 0x0f, 0, 2, 2, 7, 7], b"payloadpayload".as_slice()].concat());
    let footer = &bytes[sealed::BLOCK_HEAD_BYTES + stored.len()..];
    assert_eq!(footer.len(), 8 + 4 + 4 + 16 + 12 + sealed::TRAILER_BYTES);
    assert!(footer.ends_with(b"holdfend"));
}
