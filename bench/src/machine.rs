//! What the figures were measured on, and what it has room for.

use std::fs;

use crate::failure::{Failure, Result};

/// The most links that are measured.
pub(crate) const TEN_MILLION: u64 = 10_000_000;
/// What they need: their table and the one that replaces it, beside all else that a scenario runs.
const TEN_MILLION_BYTES: u64 = 6 << 30;

/// Fails where there is not the memory for ten million links, with a reason that fits into a report.
pub(crate) fn ten_million_fit() -> Result<()> {
    let available = memory_available()?;
    if available >= TEN_MILLION_BYTES {
        return Ok(());
    }
    let (least, found) = (TEN_MILLION_BYTES >> 20, available >> 20);
    Err(Failure::new(format!("ten million links, which need {least} MiB of free memory: there are {found}")))
}

/// What the kernel could give to new programs.
fn memory_available() -> Result<u64> {
    const FILE: &str = "/proc/meminfo";
    let text = fs::read_to_string(FILE).map_err(Failure::at(format!("cannot read {FILE}")))?;
    let kib = field(&text, "MemAvailable").and_then(|text| text.strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| Failure::new(format!("{FILE} names no MemAvailable")))
}

/// One line: processor, cores, memory, kernel.
pub(crate) fn description() -> String {
    let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory_info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = field(&cpu_info, "model name").unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory_kib: u64 =
        field(&memory_info, "MemTotal").and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0);
    format!("{model}, {cores} cores, {} GiB, Linux {}", memory_kib.div_ceil(1 << 20), kernel.trim())
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(key, value)| (key.trim() == name).then_some(value.trim()))
}
