//! A disk that takes so many writes in a second: a file system in a file, for one process alone.
//!
//! The kernel's own bound on a group of processes (blkio of cgroups 1, io of cgroups 2) holds it back,
//! as providers of virtual machines do with small volumes: writes within the bound are as quick as the
//! disk below, those beyond it wait for their turn. It needs root, a loop device and that part of the
//! kernel; where something is missing, the error says what. A run that is killed leaves it mounted.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Failure, Result};
use crate::process::{Cores, Running, output, require};

/// One such disk; it is taken away when this is dropped, before which nothing may use it any more.
pub(crate) struct SlowDisk {
    device: String,
    mounted: Option<PathBuf>,
    group: Option<PathBuf>,
}

/// Takes no space until it is written.
const BYTES: u64 = 4 << 30;

impl SlowDisk {
    /// Makes the disk's file as `image`, which takes `per_second` writes, and mounts it at `folder`.
    pub(crate) fn mount(image: &Path, folder: &Path, per_second: u32) -> Result<Self> {
        if !rustix::process::getuid().is_root() {
            return Err(Failure::new("a slow disk can be made by root alone"));
        }
        require("losetup", "util-linux")?;
        require("mkfs.ext4", "e2fsprogs")?;
        let hierarchy = Hierarchy::find()?;
        File::create(image)
            .and_then(|file| file.set_len(BYTES))
            .map_err(Failure::at(format!("cannot make {}", image.display())))?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image))?;
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(image))?;
        // From here on dropping it takes back what was done.
        let mut disk = Self { device: device.trim().to_owned(), mounted: None, group: None };
        run(Command::new("mount").arg(&disk.device).arg(folder))?;
        disk.mounted = Some(folder.to_owned());
        disk.group = Some(hierarchy.bounded_group(&disk.number()?, per_second)?);
        Ok(disk)
    }

    /// Holds back what `process` writes to it from now on.
    pub(crate) fn hold_back(&self, process: &Running) -> Result<()> {
        let Some(group) = &self.group else { return Err(Failure::new("the slow disk has no bound")) };
        write(&group.join("cgroup.procs"), &process.id().to_string())
    }

    /// `7:0`, as the kernel calls it.
    fn number(&self) -> Result<String> {
        let name = self.device.trim_start_matches("/dev/");
        let file = format!("/sys/block/{name}/dev");
        let number = fs::read_to_string(&file).map_err(Failure::at(format!("cannot read {file}")))?;
        Ok(number.trim().to_owned())
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        // What fails here is left to people, who find it under its name.
        if let Some(folder) = &self.mounted {
            let _ = run(Command::new("umount").arg(folder));
        }
        let _ = run(Command::new("losetup").args(["--detach", &self.device]));
        if let Some(group) = &self.group {
            let _ = fs::remove_dir(group);
        }
    }
}

/// Where the kernel takes bounds on writes.
enum Hierarchy {
    /// `blkio` of cgroups 1.
    Blkio(PathBuf),
    /// `io` of cgroups 2.
    Io(PathBuf),
}

impl Hierarchy {
    fn find() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/mounts").map_err(Failure::at("cannot read /proc/mounts"))?;
        Self::of(&mounts, |folder| {
            fs::read_to_string(folder.join("cgroup.controllers"))
                .is_ok_and(|controllers| controllers.split_whitespace().any(|name| name == "io"))
        })
        .ok_or_else(|| {
            Failure::new(
                "no slow disk can be made: neither blkio of cgroups 1 nor io of cgroups 2 is mounted, and the \
                 kernel needs CONFIG_BLK_DEV_THROTTLING",
            )
        })
    }

    fn of(mounts: &str, has_io: impl Fn(&Path) -> bool) -> Option<Self> {
        mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (folder, kind, options) = (Path::new(fields.next()?), fields.next()?, fields.next()?);
            match kind {
                "cgroup" if options.split(',').any(|option| option == "blkio") => {
                    Some(Self::Blkio(folder.to_owned()))
                }
                "cgroup2" if has_io(folder) => Some(Self::Io(folder.to_owned())),
                _ => None,
            }
        })
    }

    /// A group of our own whose processes may write to the device so often in a second.
    fn bounded_group(&self, device: &str, per_second: u32) -> Result<PathBuf> {
        let name = format!("holdfast-bench-{}", std::process::id());
        let (Self::Blkio(root) | Self::Io(root)) = self;
        let group = root.join(name);
        if let Self::Io(root) = self {
            write(&root.join("cgroup.subtree_control"), "+io")?;
        }
        fs::create_dir_all(&group).map_err(Failure::at(format!("cannot make {}", group.display())))?;
        let bounded = match self {
            Self::Blkio(_) => {
                write(&group.join("blkio.throttle.write_iops_device"), &format!("{device} {per_second}"))
            }
            Self::Io(_) => write(&group.join("io.max"), &format!("{device} wiops={per_second}")),
        };
        if let Err(failure) = bounded {
            let _ = fs::remove_dir(&group);
            return Err(failure);
        }
        Ok(group)
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).map_err(Failure::at(format!("cannot write {text} to {}", file.display())))
}

fn run(command: &mut Command) -> Result<String> {
    Ok(output(command, Cores::All)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_groups_are_found() {
        let first =
            "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup /sys/fs/cgroup/blkio cgroup rw,blkio 0 0\n";
        let second = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        assert!(
            matches!(Hierarchy::of(first, |_| false), Some(Hierarchy::Blkio(root)) if root.ends_with("blkio"))
        );
        assert!(
            matches!(Hierarchy::of(second, |_| true), Some(Hierarchy::Io(root)) if root.ends_with("cgroup"))
        );
        assert!(Hierarchy::of(second, |_| false).is_none());
    }
}
