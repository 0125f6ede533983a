//! Rows of links as CSV, TSV and NDJSON, in and out, one at a time.

use std::borrow::Cow;
use std::io::{self, BufRead as _, BufReader, Write};
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder, WriterBuilder};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::{Failure, Format, open_file};
use crate::database::{LinkRow, OwnedLinkRow, escape, unescape};
use crate::event::UnixMillis;

/// The columns, in the order in which they are written; `token` and `url` are needed.
const COLUMNS: [&str; 7] = ["namespace", "token", "url", "campaign", "append", "expires_at", "disabled"];
/// A longer line is no link.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Takes a line's number, the position in the file, and the row or what is wrong with it.
pub(super) type Each<'a> = dyn FnMut(u64, u64, Result<OwnedLinkRow, String>) -> Result<(), Failure> + 'a;

/// Reads every row of `file`; rows that name no namespace get `namespace`.
pub(super) fn read(
    file: &Path,
    format: Format,
    namespace: Option<&str>,
    each: &mut Each<'_>,
) -> Result<(), Failure> {
    match format {
        Format::Csv => read_table(file, b',', namespace, each),
        Format::Tsv => read_table(file, b'\t', namespace, each),
        Format::Ndjson => read_lines(file, namespace, each),
    }
}

fn read_table(
    file: &Path,
    delimiter: u8,
    namespace: Option<&str>,
    each: &mut Each<'_>,
) -> Result<(), Failure> {
    let mut reader = ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(open_file(file)?);
    let fault = |line: u64, what: String| Failure::Other(format!("{}:{line}: {what}", file.display()));
    let unreadable = |error: csv::Error| Failure::of(&format!("cannot read {}", file.display()), &error);
    let header = reader.byte_headers().map_err(unreadable)?.clone();
    if header.is_empty() {
        return Err(fault(1, format!("found no header; allowed: the columns {}", COLUMNS.join(", "))));
    }
    let mut places = [None; COLUMNS.len()];
    for (place, name) in header.iter().enumerate() {
        let name = name.strip_prefix(b"\xef\xbb\xbf").unwrap_or(name);
        let Some(column) = COLUMNS.iter().position(|column| column.as_bytes() == name) else {
            return Err(fault(
                1,
                format!("found the column \"{}\"; allowed: {}", name.escape_ascii(), COLUMNS.join(", ")),
            ));
        };
        if places[column].replace(place).is_some() {
            return Err(fault(1, format!("the column \"{}\" stands twice", COLUMNS[column])));
        }
    }
    for column in [1, 2] {
        if places[column].is_none() {
            return Err(fault(1, format!("the column \"{}\" is missing", COLUMNS[column])));
        }
    }
    if places[0].is_none() && namespace.is_none() {
        return Err(fault(
            1,
            "the column \"namespace\" is missing; name one for all rows by --namespace".to_owned(),
        ));
    }
    let mut record = ByteRecord::new();
    while reader.read_byte_record(&mut record).map_err(unreadable)? {
        let (line, at) = record.position().map_or((0, 0), |position| (position.line(), position.byte()));
        let row = if record.len() == header.len() {
            row_of(&record, &places, namespace)
        } else {
            Err(format!("found {} columns; the header has {}", record.len(), header.len()))
        };
        each(line, at, row)?;
    }
    Ok(())
}

fn row_of(
    record: &ByteRecord,
    places: &[Option<usize>; 7],
    namespace: Option<&str>,
) -> Result<OwnedLinkRow, String> {
    let field = |column: usize| -> Result<&str, String> {
        let Some(bytes) = places[column].and_then(|place| record.get(place)) else { return Ok("") };
        std::str::from_utf8(bytes)
            .map_err(|_| format!("{} is not UTF-8: {}", COLUMNS[column], bytes.escape_ascii()))
    };
    let named = field(0)?;
    Ok(OwnedLinkRow {
        namespace: name(if named.is_empty() { namespace.unwrap_or_default() } else { named })?,
        token: unescape(field(1)?).into_owned(),
        url: field(2)?.to_owned(),
        campaign: field(3)?.to_owned(),
        append: flag(COLUMNS[4], field(4)?, true)?,
        expires_at: moment(field(5)?)?,
        disabled: flag(COLUMNS[6], field(6)?, false)?,
        ..OwnedLinkRow::default()
    })
}

fn name(namespace: &str) -> Result<Vec<u8>, String> {
    if namespace.is_empty() {
        return Err("namespace is empty; name one, or one for all rows by --namespace".to_owned());
    }
    Ok(unescape(namespace).into_owned())
}

fn flag(column: &str, text: &str, default: bool) -> Result<bool, String> {
    match text {
        "" => Ok(default),
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(format!("{column} is \"{}\"; allowed: true, false, or nothing", other.escape_debug())),
    }
}

fn moment(text: &str) -> Result<Option<UnixMillis>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let fault =
        || format!("expires_at is \"{}\"; allowed: a time such as 2031-01-01T00:00:00Z", text.escape_debug());
    let at: Timestamp = text.parse().map_err(|_| fault())?;
    u64::try_from(at.as_millisecond()).map(|ms| Some(UnixMillis(ms))).map_err(|_| fault())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    namespace: Option<Cow<'a, str>>,
    #[serde(borrow)]
    token: Cow<'a, str>,
    #[serde(borrow)]
    url: Cow<'a, str>,
    #[serde(borrow, default)]
    campaign: Cow<'a, str>,
    append: Option<bool>,
    #[serde(borrow)]
    expires_at: Option<Cow<'a, str>>,
    disabled: Option<bool>,
}

fn read_lines(file: &Path, namespace: Option<&str>, each: &mut Each<'_>) -> Result<(), Failure> {
    let mut reader = BufReader::new(open_file(file)?);
    let (mut bytes, mut line, mut at) = (Vec::new(), 0, 0);
    loop {
        bytes.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        let read = io::Read::take(&mut reader, limit)
            .read_until(b'\n', &mut bytes)
            .map_err(|error| Failure::of(&format!("cannot read {}", file.display()), &error))?;
        if read == 0 {
            return Ok(());
        }
        line += 1;
        if read > LINE_BYTES_MAX {
            return Err(Failure::Other(format!(
                "{}:{line}: longer than {LINE_BYTES_MAX} bytes",
                file.display()
            )));
        }
        let text = bytes.trim_ascii();
        if !text.is_empty() {
            each(line, at, object(text, namespace))?;
        }
        at += read as u64;
    }
}

fn object(text: &[u8], namespace: Option<&str>) -> Result<OwnedLinkRow, String> {
    let line: Line<'_> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let named = line.namespace.as_deref().unwrap_or_default();
    Ok(OwnedLinkRow {
        namespace: name(if named.is_empty() { namespace.unwrap_or_default() } else { named })?,
        token: unescape(&line.token).into_owned(),
        url: line.url.into_owned(),
        campaign: line.campaign.into_owned(),
        append: line.append.unwrap_or(true),
        expires_at: moment(line.expires_at.as_deref().unwrap_or_default())?,
        disabled: line.disabled.unwrap_or(false),
        ..OwnedLinkRow::default()
    })
}

/// Writes rows; what it writes, [`read`] reads.
pub(super) enum Writer<W: Write> {
    Table(Box<csv::Writer<W>>),
    Lines(W),
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W, format: Format) -> Self {
        let delimiter = match format {
            Format::Csv => b',',
            Format::Tsv => b'\t',
            Format::Ndjson => return Self::Lines(out),
        };
        let mut writer = WriterBuilder::new().delimiter(delimiter).from_writer(out);
        // A writer that cannot take the header cannot take the first row either, which says so.
        let _ = writer.write_record(COLUMNS);
        Self::Table(Box::new(writer))
    }

    pub(super) fn row(&mut self, row: &LinkRow<'_>) -> io::Result<()> {
        let owned = expires(row.expires_at);
        match self {
            Self::Table(writer) => {
                let (namespace, token) = (escape(row.namespace), escape(row.token));
                let (append, disabled) = (row.append.to_string(), row.disabled.to_string());
                let fields = [
                    &namespace,
                    &token,
                    row.url,
                    row.campaign,
                    append.as_str(),
                    owned.as_str(),
                    disabled.as_str(),
                ];
                writer.write_record(fields).map_err(io::Error::other)
            }
            Self::Lines(out) => {
                let mut line = json!({
                    "namespace": escape(row.namespace),
                    "token": escape(row.token),
                    "url": row.url,
                    "campaign": row.campaign,
                    "append": row.append,
                    "disabled": row.disabled,
                });
                if !owned.is_empty() {
                    line["expires_at"] = owned.into();
                }
                writeln!(out, "{line}")
            }
        }
    }

    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Self::Table(mut writer) => writer.flush(),
            Self::Lines(mut out) => out.flush(),
        }
    }
}

pub(super) fn expires(at: Option<UnixMillis>) -> String {
    at.and_then(|at| i64::try_from(at.0).ok())
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .map_or_else(String::new, |at| at.to_string())
}

/// A row for people and programs that look at one link.
pub(super) fn to_json(row: &OwnedLinkRow) -> serde_json::Value {
    json!({
        "url": row.url,
        "campaign": row.campaign,
        "append": row.append,
        "expires_at": expires(row.expires_at),
        "disabled": row.disabled,
        "deleted": row.deleted,
    })
}
