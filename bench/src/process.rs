//! Starts competitors pinned to a core and reads what the operating system says they have used.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::failure::{Failure, Result};

/// Where a process may run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cores {
    All,
    One(usize),
}

/// The servers' core.
pub(crate) const SERVER: Cores = Cores::One(0);
/// The load generator's core.
pub(crate) const CLIENT: Cores = Cores::One(1);

/// What is open beside connections.
const OTHER_FILES: u64 = 512;

/// A started program and those that work for it; they are killed when this is dropped.
pub(crate) struct Running {
    name: String,
    child: Child,
    companions: Vec<Self>,
}

impl Running {
    /// Starts `command` on `cores`; its threads and children stay there.
    pub(crate) fn start(command: &mut Command, cores: Cores) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = on(cores, || command.spawn().map_err(Failure::at(format!("cannot start {name}"))))?;
        Ok(Self { name, child, companions: Vec::new() })
    }

    /// The same with a program that works for it: what that uses counts as its own.
    pub(crate) fn with(mut self, companion: Self) -> Self {
        self.companions.push(companion);
        self
    }

    /// An error when it has ended by itself.
    pub(crate) fn still_runs(&mut self) -> Result<()> {
        self.companions.iter_mut().try_for_each(Self::still_runs)?;
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(Failure::new(format!("{} ended: {status}", self.name))),
            Err(error) => Err(Failure::at(format!("cannot watch {}", self.name))(error)),
        }
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(mut self, patience: Duration) -> Result<()> {
        let failure = || Failure::at(format!("cannot stop {}", self.name));
        kill_process(self.pid(), Signal::TERM).map_err(|error| failure()(error.into()))?;
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().map_err(failure())? {
                // Some let the signal itself end them.
                let as_asked = status.signal() == Some(Signal::TERM.as_raw());
                return if as_asked { Ok(()) } else { ended_well(&self.name, status) };
            }
            sleep(Duration::from_millis(5));
        }
        Err(Failure::new(format!("{} did not stop within {patience:?}", self.name)))
    }

    /// CPU time of the processes with their children, those that have ended included, since they started.
    pub(crate) fn cpu(&self) -> Result<CpuTimes> {
        let mut times = self.own_cpu()?;
        for companion in &self.companions {
            times.add(companion.cpu()?);
        }
        Ok(times)
    }

    fn own_cpu(&self) -> Result<CpuTimes> {
        let pid = self.child.id();
        loop {
            let ended = Stat::of_process(pid)?.of_ended();
            let mut times = CpuTimes::default();
            times.add_process(pid)?;
            for child in children(pid) {
                // It may have ended since.
                let _ = times.add_process(child);
            }
            // A child that ended meanwhile was counted twice or not at all.
            if Stat::of_process(pid)?.of_ended() == ended {
                return Ok(times);
            }
        }
    }

    /// Resident memory of the processes with their children, now and at its peak, in bytes. What several of them
    /// share counts once; of the peak what each once had more than now counts, shared or not.
    pub(crate) fn memory(&self) -> Result<Memory> {
        let pid = self.child.id();
        let mut memory = Memory { resident_bytes: 0, peak_bytes: 0 };
        for pid in std::iter::once(pid).chain(children(pid)) {
            let (status, shares) = (read_proc(pid, "status")?, read_proc(pid, "smaps_rollup")?);
            let kib = |text: &str, key: &str| -> Option<u64> {
                text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
            };
            let of_status = |key: &str| kib(&status, key).unwrap_or(0) * 1024;
            let resident_bytes = kib(&shares, "Pss:").unwrap_or(0) * 1024;
            memory.resident_bytes += resident_bytes;
            memory.peak_bytes += resident_bytes + of_status("VmHWM:").saturating_sub(of_status("VmRSS:"));
        }
        for companion in &self.companions {
            let other = companion.memory()?;
            memory.resident_bytes += other.resident_bytes;
            memory.peak_bytes += other.peak_bytes;
        }
        Ok(memory)
    }

    /// Waits until it uses next to no CPU: what a load left to do in the background is done.
    pub(crate) fn wait_until_quiet(&self, patience: Duration) -> Result<()> {
        const STEP: Duration = Duration::from_millis(500);
        let deadline = Instant::now() + patience;
        let mut quiet_steps = 0;
        while quiet_steps < 2 {
            let before = self.cpu()?.total();
            sleep(STEP);
            quiet_steps = if self.cpu()?.total() - before <= STEP / 25 { quiet_steps + 1 } else { 0 };
            if Instant::now() > deadline {
                return Err(Failure::new(format!("{} is still busy after {patience:?}", self.name)));
            }
        }
        Ok(())
    }

    /// Sends `signal` to the process, then to its children; returns their ids, its own first.
    pub(crate) fn signal_all(&self, signal: Signal) -> Vec<u32> {
        let own = self.child.id();
        send(own, signal);
        let children = children(own);
        children.iter().for_each(|&child| send(child, signal));
        std::iter::once(own).chain(children).collect()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in children(self.child.id()) {
            send(child, Signal::KILL);
        }
        // It may have ended already; there is nothing else to do about a failure here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) resident_bytes: u64,
    pub(crate) peak_bytes: u64,
}

/// CPU time, in user and system mode apart, and by the name of the thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct CpuTimes {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    pub(crate) threads: BTreeMap<String, Duration>,
}

impl CpuTimes {
    pub(crate) fn total(&self) -> Duration {
        self.user + self.system
    }

    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let before = |name: &String| earlier.threads.get(name).copied().unwrap_or_default();
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
            threads: self
                .threads
                .iter()
                .map(|(name, &time)| (name.clone(), time.saturating_sub(before(name))))
                .collect(),
        }
    }

    fn add(&mut self, other: Self) {
        self.user += other.user;
        self.system += other.system;
        for (name, time) in other.threads {
            *self.threads.entry(name).or_default() += time;
        }
    }

    /// What this program itself has used, as a client perhaps.
    pub(crate) fn of_this_program() -> Result<Self> {
        let mut times = Self::default();
        times.add_process(std::process::id())?;
        Ok(times)
    }

    fn add_process(&mut self, pid: u32) -> Result<()> {
        let stat = Stat::of_process(pid)?;
        self.user += stat.user + stat.ended_user;
        self.system += stat.system + stat.ended_system;
        for thread in numbers_in(&format!("/proc/{pid}/task")) {
            // A thread may end between the two reads; the process' own sum still has its time.
            if let Ok(stat) =
                read_proc(pid, &format!("task/{thread}/stat")).and_then(|text| Stat::of(&text, pid))
            {
                *self.threads.entry(stat.name).or_default() += stat.user + stat.system;
            }
        }
        Ok(())
    }
}

/// The fields of a `stat` file that matter here.
struct Stat {
    name: String,
    parent: u32,
    user: Duration,
    system: Duration,
    /// Of children that have ended.
    ended_user: Duration,
    ended_system: Duration,
}

impl Stat {
    fn of_process(pid: u32) -> Result<Self> {
        Self::of(&read_proc(pid, "stat")?, pid)
    }

    fn of_ended(&self) -> Duration {
        self.ended_user + self.ended_system
    }

    fn of(text: &str, pid: u32) -> Result<Self> {
        Self::parse(text).ok_or_else(|| Failure::new(format!("cannot understand /proc/{pid}/stat")))
    }

    fn parse(text: &str) -> Option<Self> {
        // The name stands in parentheses and may hold spaces and parentheses itself.
        let (head, tail) = text.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let per_second = rustix::param::clock_ticks_per_second();
        let time = |ticks: u64| Duration::from_micros(ticks * 1_000_000 / per_second);
        Some(Self {
            name: name.to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            user: time(ticks(11)?),
            system: time(ticks(12)?),
            ended_user: time(ticks(13)?),
            ended_system: time(ticks(14)?),
        })
    }
}

/// Runs a command to its end on `cores` and returns what it printed.
pub(crate) fn output(command: &mut Command, cores: Cores) -> Result<(String, CpuTimes)> {
    let mut running = Running::start(command.stdout(Stdio::piped()), cores)?;
    let failure = || Failure::at(format!("cannot read from {}", running.name));
    let mut text = String::new();
    let mut out = running.child.stdout.take().expect("asked for above");
    out.read_to_string(&mut text).map_err(failure())?;
    // Its output has ended, but it is not yet waited for, so its times can still be read.
    let times = running.cpu().unwrap_or_default();
    let status = running.child.wait().map_err(failure())?;
    ended_well(&running.name, status)?;
    Ok((text, times))
}

/// Fails with the Debian package to install when `program` is not to be found.
pub(crate) fn require(program: &str, package: &str) -> Result<()> {
    if installed(program) {
        return Ok(());
    }
    Err(Failure::new(format!("{program} is missing: install Debian's package {package}")))
}

pub(crate) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(Into::into);
    std::env::split_paths(&path).chain(system).any(|folder| folder.join(program).is_file())
}

pub(crate) fn ended_well(name: &str, status: ExitStatus) -> Result<()> {
    if status.success() { Ok(()) } else { Err(Failure::new(format!("{name} ended: {status}"))) }
}

/// Runs `work` with this thread on `cores`, which what it starts inherits.
pub(crate) fn on<T>(cores: Cores, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let Cores::One(core) = cores else { return work() };
    let failure = |error: rustix::io::Errno| Failure::at(format!("cannot pin to core {core}"))(error.into());
    let before = sched_getaffinity(None).map_err(failure)?;
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only).map_err(failure)?;
    let outcome = work();
    sched_setaffinity(None, &before).map_err(failure)?;
    outcome
}

/// Lets this process and what it starts have so many connections, if the system allows it.
pub(crate) fn allow_connections(connections: u32) -> Result<()> {
    let wanted = u64::from(connections) + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(wanted));
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).map_err(|error| {
        Failure::at(format!("{wanted} open files are not allowed; raise the limit with ulimit -n"))(
            error.into(),
        )
    })
}

/// One that has ended already needs no signal.
fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

fn children(pid: u32) -> Vec<u32> {
    numbers_in("/proc")
        .into_iter()
        .filter(|&other| {
            let stat = read_proc(other, "stat").ok().and_then(|text| Stat::parse(&text));
            stat.is_some_and(|stat| stat.parent == pid)
        })
        .collect()
}

fn numbers_in(folder: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn read_proc(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).map_err(Failure::at(format!("cannot read {path}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_shift_the_fields() {
        let stat =
            Stat::parse("7 (a (b) c) S 3 7 7 0 -1 4194304 1 0 0 0 250 50 0 0 20 0 1 0").expect("parses");
        assert_eq!((stat.name.as_str(), stat.parent), ("a (b) c", 3));
        let per_second = rustix::param::clock_ticks_per_second();
        assert_eq!(stat.user, Duration::from_micros(250_000_000 / per_second));
        assert!(Stat::parse("7 (a) S 3").is_none());
    }

    #[test]
    fn a_pinned_child_runs_where_it_should_and_reports_its_times() {
        let (text, _) =
            output(Command::new("grep").args(["Cpus_allowed_list", "/proc/self/status"]), Cores::One(0))
                .expect("runs");
        assert_eq!(text.split_whitespace().last(), Some("0"));
    }
}
