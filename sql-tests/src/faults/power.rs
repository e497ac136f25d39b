//! Power cuts: every node's data directory on a disk of its own whose file system loses, at one
//! instant, all that was not synced.
//!
//! ```text
//! <temp>/basalt-power-<pid>-<n>/<node>.img   a file of zeros, made an ext4, on a loop device
//! <temp>/basalt-power-<pid>-<n>/<node>       where it is mounted: the data directory goes here
//! cut      EXT4_IOC_SHUTDOWN(NOLOGFLUSH) on all: nothing reaches the disks any more, not even the
//!          journal in memory; every write and fsync of a live process fails with EIO
//! restore  when the processes are dead: unmount, mount again (the journal is replayed)
//! ```
//! Stricter than SIGKILL, after which the page cache survives. Verified of this rig: a file that
//! was written and not synced is empty after it, one that was synced is whole.
//!
//! Needs root, loop devices, ext4 and `python3`, which makes the system call: `unsafe` code is
//! denied here. [`PowerGrid::possible`] says whether all of that is there.
//!
//! Invariant: nothing stays mounted when a [`PowerGrid`] is dropped; what a killed test process
//! left is unmounted by the next one, known by its name.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, bail, ensure};

/// The beginning of the names of our folders.
const PREFIX: &str = "basalt-power-";
/// Size of each disk. Sparse: what is written takes space, no more.
const DISK_MIB: u64 = 512;

/// Shuts file systems down, as told by lines of tab-separated mount points. The number is that of
/// EXT4_IOC_SHUTDOWN, the argument 2 is NOLOGFLUSH. All are opened before the first is shut down.
const SWITCH: &str = "
import fcntl, os, struct, sys
for line in sys.stdin:
    disks = [os.open(path, os.O_RDONLY) for path in line.rstrip('\\n').split('\\t')]
    for disk in disks:
        fcntl.ioctl(disk, 0x8004587d, struct.pack('I', 2))
    for disk in disks:
        os.close(disk)
    print('off', flush=True)
";

/// Disks that lose power together.
#[derive(Debug)]
pub struct PowerGrid {
    folder: PathBuf,
    disks: Vec<Disk>,
    switch: Switch,
}

#[derive(Debug)]
struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

/// The process that makes the system calls, started before it is needed: a cut takes no longer
/// than a message.
#[derive(Debug)]
struct Switch {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl PowerGrid {
    /// Whether power can be cut on this machine, tried out once per process.
    ///
    /// # Errors
    /// What is missing, for [`skip`](super::skip::skip).
    pub fn possible() -> Result<(), String> {
        static POSSIBLE: OnceLock<Result<(), String>> = OnceLock::new();
        let tried = POSSIBLE.get_or_init(|| {
            let cut = || -> anyhow::Result<()> {
                let mut grid = Self::new(&["probe"])?;
                grid.cut()?;
                let written = fs::write(grid.disk(0).join("file"), "late");
                ensure!(written.is_err(), "the file system goes on after its shutdown");
                grid.restore()
            };
            cut().map_err(|error| format!("{error:#}"))
        });
        tried.clone()
    }

    /// Makes and mounts an empty disk per name.
    ///
    /// # Errors
    /// When the machine does not allow it; nothing is left then.
    pub fn new(names: &[&str]) -> anyhow::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        static CLEANED: OnceLock<()> = OnceLock::new();
        CLEANED.get_or_init(clean_up_after_the_dead);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("{PREFIX}{}-{number}", std::process::id()));
        let switch = Switch::start()?;
        fs::create_dir_all(&folder)?;
        let mut grid = Self { folder, disks: Vec::new(), switch };
        for name in names {
            let image = grid.folder.join(format!("{name}.img"));
            let mount = grid.folder.join(name);
            fs::create_dir(&mount)?;
            fs::File::create_new(&image)?.set_len(DISK_MIB << 20)?;
            // Lazy initialisation would write to the disk in the background for seconds.
            let options = ["-q", "-F", "-E", "lazy_itable_init=0,nodiscard"];
            run(Command::new("mkfs.ext4").args(options).arg(&image))?;
            let disk = Disk { image, mount };
            disk.mount()?;
            grid.disks.push(disk);
        }
        Ok(grid)
    }

    /// Where a disk is mounted, in the order of the names.
    pub fn disk(&self, index: usize) -> &Path {
        &self.disks[index].mount
    }

    /// Cuts the power of all disks. What was not synced is lost from this instant on; processes
    /// that run see every further write fail.
    ///
    /// # Errors
    /// When the system call is refused.
    pub fn cut(&mut self) -> anyhow::Result<()> {
        let all: Vec<_> = self.disks.iter().map(|disk| disk.mount.display().to_string()).collect();
        self.switch.press(&all.join("\t"))
    }

    /// Cuts the power of one disk.
    ///
    /// # Errors
    /// As [`Self::cut`].
    pub fn cut_one(&mut self, index: usize) -> anyhow::Result<()> {
        let mount = self.disks[index].mount.display().to_string();
        self.switch.press(&mount)
    }

    /// Brings all disks back with what they kept. Nobody may have a file open on them.
    ///
    /// # Errors
    /// When a disk is still in use, or its file system cannot be mounted any more.
    pub fn restore(&mut self) -> anyhow::Result<()> {
        (0..self.disks.len()).try_for_each(|index| self.restore_one(index))
    }

    /// Brings one disk back.
    ///
    /// # Errors
    /// As [`Self::restore`].
    pub fn restore_one(&mut self, index: usize) -> anyhow::Result<()> {
        self.disks[index].unmount()?;
        self.disks[index].mount()
    }
}

impl Drop for PowerGrid {
    fn drop(&mut self) {
        for disk in &self.disks {
            if disk.unmount().is_err() {
                // Somebody holds it: it goes away with the last of them.
                let _logged = run(Command::new("umount").arg("--lazy").arg(&disk.mount));
            }
        }
        // Only what is ours: a folder that is still mounted is not emptied.
        if let Err(error) = remove_folder(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), %error, "a power rig is left behind");
        }
    }
}

impl Disk {
    fn mount(&self) -> anyhow::Result<()> {
        // The loop device of `-o loop` goes away with the mount. Barriers are on by default.
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.mount))
    }

    fn unmount(&self) -> anyhow::Result<()> {
        run(Command::new("umount").arg(&self.mount))
    }
}

impl Switch {
    fn start() -> anyhow::Result<Self> {
        let mut child = Command::new("python3")
            .args(["-c", SWITCH])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("python3 cannot be started")?;
        let input = child.stdin.take().context("standard input was piped")?;
        let output = child.stdout.take().context("standard output was piped")?;
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    fn press(&mut self, mounts: &str) -> anyhow::Result<()> {
        writeln!(self.input, "{mounts}")?;
        let mut answer = String::new();
        self.output.read_line(&mut answer)?;
        ensure!(answer == "off\n", "the file systems {mounts} could not be shut down");
        Ok(())
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _waited = self.child.wait();
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{program} cannot be started"))?;
    if !output.status.success() {
        bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Unmounts and removes the rigs of test processes that are no more.
fn clean_up_after_the_dead() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        let owner = rest.split('-').next().and_then(|id| id.parse::<u32>().ok());
        if owner.is_none_or(|owner| Path::new(&format!("/proc/{owner}")).is_dir()) {
            continue;
        }
        for mount in mounts_below(&entry.path()) {
            let _not_ours = run(Command::new("umount").arg("--lazy").arg(mount));
        }
        let _not_ours = remove_folder(&entry.path());
    }
}

fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    mounts.filter(|mount| mount.starts_with(folder)).collect()
}

/// Removes images and mount points, and no file of anything that is still mounted.
fn remove_folder(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

#[cfg(test)]
mod tests;
