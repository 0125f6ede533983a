//! Rows of domains as CSV, TSV and NDJSON, in and out.

use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder, WriterBuilder};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::links::open_file;
use super::{Failure, Format};
use crate::database::{DomainRow, escape, unescape};
use crate::links::domains::BRAND_BYTES_MAX;

/// A longer line is no domain.
const LINE_BYTES_MAX: u64 = 2 * BRAND_BYTES_MAX as u64;

/// A row as a file has it; `host` and `site` are needed.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written {
    host: String,
    site: String,
    /// Escaped, as in the database.
    #[serde(default)]
    namespace: String,
    /// In a table the text of a JSON object, in NDJSON that or the object itself.
    #[serde(default)]
    brand: Value,
    #[serde(default)]
    disabled: Option<bool>,
}

impl Written {
    fn row(self) -> DomainRow {
        let brand = match self.brand {
            Value::Null => "{}".to_owned(),
            Value::String(text) if text.trim().is_empty() => "{}".to_owned(),
            Value::String(text) => text,
            object => object.to_string(),
        };
        DomainRow {
            host: self.host,
            site: self.site,
            namespace: unescape(&self.namespace).into_owned(),
            brand,
            disabled: self.disabled.unwrap_or(false),
            deleted: false,
        }
    }
}

/// Takes a line's number, and the row or what is wrong with it.
pub(super) type Each<'a> = dyn FnMut(u64, Result<DomainRow, String>) + 'a;

/// Reads every row of `file`.
pub(super) fn read(file: &Path, format: Format, each: &mut Each<'_>) -> Result<(), Failure> {
    match format {
        Format::Csv => read_table(file, b',', each),
        Format::Tsv => read_table(file, b'\t', each),
        Format::Ndjson => read_lines(file, each),
    }
}

fn read_table(file: &Path, delimiter: u8, each: &mut Each<'_>) -> Result<(), Failure> {
    let mut reader = ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(open_file(file)?);
    let unreadable = |error: csv::Error| Failure::of(&format!("cannot read {}", file.display()), &error);
    let header = reader.byte_headers().map_err(unreadable)?.clone();
    let header: ByteRecord =
        header.iter().map(|name| name.strip_prefix(b"\xef\xbb\xbf").unwrap_or(name)).collect();
    for column in ["host", "site"] {
        if !header.iter().any(|name| name == column.as_bytes()) {
            let what = "the columns are host and site, and as one likes namespace, brand, disabled";
            return Err(Failure::Other(format!(
                "{}:1: the column \"{column}\" is missing; {what}",
                file.display()
            )));
        }
    }
    let mut record = ByteRecord::new();
    while reader.read_byte_record(&mut record).map_err(unreadable)? {
        let line = record.position().map_or(0, csv::Position::line);
        let row = if record.len() == header.len() {
            record.deserialize::<Written>(Some(&header)).map(Written::row).map_err(|error| reason(&error))
        } else {
            Err(format!("found {} columns; the header has {}", record.len(), header.len()))
        };
        each(line, row);
    }
    Ok(())
}

/// What is wrong with a row, without its place, which is said anyway.
fn reason(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Deserialize { err, .. } => err.kind().to_string(),
        _ => error.to_string(),
    }
}

fn read_lines(file: &Path, each: &mut Each<'_>) -> Result<(), Failure> {
    let unreadable = |error: io::Error| Failure::of(&format!("cannot read {}", file.display()), &error);
    let mut reader = BufReader::new(open_file(file)?);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(unreadable)?;
        if line.is_empty() {
            break;
        }
        if line.len() as u64 == LINE_BYTES_MAX && !line.ends_with(b"\n") {
            each(number, Err(format!("a line has more than {LINE_BYTES_MAX} bytes")));
            // Those after it are looked at all the same.
            reader.skip_until(b'\n').map_err(unreadable)?;
            continue;
        }
        let line = if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
        if line.trim_ascii().is_empty() {
            continue;
        }
        let row = serde_json::from_slice::<Written>(line).map(Written::row);
        each(number, row.map_err(|error| error.to_string()));
    }
    Ok(())
}

/// Writes rows; what it writes, [`read`] reads.
pub(super) fn write<'a>(
    mut out: impl Write,
    format: Format,
    rows: impl Iterator<Item = &'a DomainRow>,
) -> io::Result<()> {
    let delimiter = match format {
        Format::Csv => b',',
        Format::Tsv => b'\t',
        Format::Ndjson => {
            for row in rows {
                let brand: Value =
                    serde_json::from_str(&row.brand).unwrap_or_else(|_| row.brand.clone().into());
                let namespace = escape(&row.namespace);
                let line = json!({
                    "host": row.host, "site": row.site, "namespace": namespace, "brand": brand,
                    "disabled": row.disabled,
                });
                writeln!(out, "{line}")?;
            }
            return out.flush();
        }
    };
    let mut writer = WriterBuilder::new().delimiter(delimiter).from_writer(out);
    writer.write_record(["host", "site", "namespace", "brand", "disabled"]).map_err(io::Error::other)?;
    for row in rows {
        let (namespace, disabled) = (escape(&row.namespace), row.disabled.to_string());
        let fields = [&*row.host, &row.site, &namespace, &row.brand, &disabled];
        writer.write_record(fields).map_err(io::Error::other)?;
    }
    writer.flush()
}
