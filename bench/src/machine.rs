//! What the figures were measured on, and what it has room for.

use std::fs;

use crate::failure::{Failure, Result};
use crate::report::leave_out;

/// The most links that are measured.
pub(crate) const TEN_MILLION: u64 = 10_000_000;
/// What they need: their table and the one that replaces it, beside all else that a scenario runs.
const TEN_MILLION_BYTES: u64 = 6 << 30;

/// Whether there is the memory for ten million links; where there is not, they are left out of the run.
pub(crate) fn ten_million_fit() -> bool {
    let why = match memory_available() {
        Ok(available) if available >= TEN_MILLION_BYTES => return true,
        Ok(available) => format!("there are {}", available >> 20),
        Err(failure) => failure.to_string(),
    };
    leave_out(format!("ten million links, which need {} MiB of free memory: {why}", TEN_MILLION_BYTES >> 20));
    false
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
