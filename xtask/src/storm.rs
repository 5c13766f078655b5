//! `cargo xtask storm`: the storm of rotations of `ban-agent/src/source/file/storm.rs` on every file
//! system that logs lie on, quiet and under load, with one core and with two. Makes and unmounts the
//! file systems; prints what failed, and a table.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{command, layout, privilege, setup::system};

/// The tests: one for each way to rotate.
const TESTS: &str = "source::file::storm::";
/// How many there are.
const KINDS: u64 = 5;
/// Of the file systems that are made.
const SIZE: u64 = 512 << 20;

/// Options of `storm`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Storms on each file system, of all kinds together
    #[arg(long, default_value_t = 2_000)]
    runs: u64,
    /// Only on these
    #[arg(long, value_delimiter = ',', default_values = FILE_SYSTEMS)]
    on: Vec<String>,
}

const FILE_SYSTEMS: [&str; 5] = ["ext4", "xfs", "btrfs", "tmpfs", "overlay"];

pub(crate) fn verb(args: &Args) -> Result<ExitCode> {
    ensure!(privilege::is_root(), "the storm mounts file systems, and needs root for that");
    system::install(&[system::STORM])?;
    let binary = built()?;
    let folder = layout::root().join("target/storm");
    // storms of each kind, with one core and with two, quiet and under load
    let rounds = args.runs.div_ceil(KINDS * 4).max(1);
    let mut table = Vec::new();
    for kind in &args.on {
        let mounted = Mounted::new(kind, &folder.join(kind))?;
        for cores in ["0", "0,1"] {
            for load in [false, true] {
                let busy = if load { Busy::start(cores)? } else { Busy::default() };
                let faults = blow(&binary, &mounted.path, cores, rounds)?;
                drop(busy);
                let load = if load { "load" } else { "quiet" };
                table.push(format!(
                    "{kind:<10} {cores:<6} {load:<6} {:>6} {faults:>7}",
                    rounds * KINDS
                ));
            }
        }
    }
    println!("\n{:<10} {:<6} {:<6} {:>6} {:>7}", "on", "cores", "", "storms", "faults");
    table.iter().for_each(|line| println!("{line}"));
    let sound = table.iter().all(|line| line.ends_with(" 0"));
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The unit tests of the agent.
fn built() -> Result<PathBuf> {
    let mut cargo = command::cargo();
    cargo.args(["test", "-p", "ban-agent", "--lib", "--no-run"]);
    cargo.arg("--message-format=json-render-diagnostics");
    println!("  $ {}", command::shown(&cargo));
    let done = cargo.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    ensure!(done.status.success(), "the tests do not compile");
    let text = String::from_utf8_lossy(&done.stdout);
    let mut paths =
        text.lines().filter_map(|line| line.split_once("\"executable\":\"")?.1.split('"').next());
    paths.next_back().map(PathBuf::from).context("cargo built no test")
}

/// How many of the storms failed there.
fn blow(binary: &Path, folder: &Path, cores: &str, rounds: u64) -> Result<u64> {
    let mut storm = Command::new("taskset");
    storm.args(["--cpu-list", cores]).arg(binary).args([TESTS, "--nocapture", "--test-threads=1"]);
    storm.env("TMPDIR", folder).env("BAN_TEST_STORMS", rounds.to_string());
    println!("  $ {}", command::shown(&storm));
    let done = storm.stderr(Stdio::inherit()).output().context("cannot start taskset")?;
    let text = String::from_utf8_lossy(&done.stdout);
    let said: Vec<&str> =
        text.lines().filter_map(|line| line.split_once("storm: ")).map(|(_, said)| said).collect();
    said.iter().for_each(|line| println!("    {line}"));
    let count = |line: &&str| line.rsplit_once(", ")?.1.split(' ').next()?.parse::<u64>().ok();
    let counts: Vec<u64> = said.iter().filter_map(count).collect();
    if counts.len() as u64 != KINDS {
        bail!("the storm ended with {}:\n{text}", done.status);
    }
    let faults: u64 = counts.iter().sum();
    ensure!(done.status.success() || faults > 0, "the storm ended with {}:\n{text}", done.status);
    if faults > 0 {
        println!("{text}");
    }
    Ok(faults)
}

/// A file system of a kind. Dropping it unmounts it.
struct Mounted {
    path: PathBuf,
    mounts: Vec<PathBuf>,
    image: Option<PathBuf>,
}

impl Mounted {
    fn new(kind: &str, folder: &Path) -> Result<Mounted> {
        let path = folder.join("mounted");
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let mut mounted = Mounted { path: path.clone(), mounts: Vec::new(), image: None };
        let mut mount = Command::new("mount");
        match kind {
            "tmpfs" => mount.args(["-t", "tmpfs", "-o", "size=512m", "storm"]),
            // upon a tmpfs of its own: overlays do not lie upon each other everywhere
            "overlay" => {
                let layers = folder.join("layers");
                fs::create_dir_all(&layers)
                    .with_context(|| format!("cannot make {}", layers.display()))?;
                command::run(Command::new("mount").args(["-t", "tmpfs", "storm"]).arg(&layers))?;
                mounted.mounts.push(layers.clone());
                let [lower, upper, work] = ["lower", "upper", "work"].map(|name| layers.join(name));
                for layer in [&lower, &upper, &work] {
                    fs::create_dir(layer)
                        .with_context(|| format!("cannot make {}", layer.display()))?;
                }
                let (lower, upper, work) = (lower.display(), upper.display(), work.display());
                let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
                mount.args(["-t", "overlay", "-o", &options, "storm"])
            }
            "ext4" | "xfs" | "btrfs" => {
                let image = folder.join("image");
                let file = fs::File::create(&image)
                    .with_context(|| format!("cannot make {}", image.display()))?;
                file.set_len(SIZE).with_context(|| format!("cannot size {}", image.display()))?;
                let quiet = if kind == "ext4" { "-F" } else { "-f" };
                command::run(Command::new(format!("mkfs.{kind}")).args(["-q", quiet]).arg(&image))?;
                mount.args(["-o", "loop"]).arg(&image);
                mounted.image = Some(image);
                &mut mount
            }
            other => bail!("no such file system: {other}; there are {}", FILE_SYSTEMS.join(", ")),
        };
        command::run(mount.arg(&path))?;
        mounted.mounts.push(path);
        Ok(mounted)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for path in self.mounts.iter().rev() {
            if let Err(error) = command::run(Command::new("umount").arg(path)) {
                eprintln!("cannot unmount {}: {error:#}", path.display());
            }
        }
        self.image.iter().for_each(|image| drop(fs::remove_file(image)));
    }
}

/// Two programs for each core that want all of it. Dropping it ends them.
#[derive(Default)]
struct Busy(Vec<Child>);

impl Busy {
    fn start(cores: &str) -> Result<Busy> {
        let mut busy = Busy::default();
        for _ in 0..2 * cores.split(',').count() {
            let mut idle = Command::new("taskset");
            idle.args(["--cpu-list", cores, "sh", "-c", "while :; do :; done"]);
            busy.0.push(idle.spawn().context("cannot start taskset")?);
        }
        Ok(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // it is ours, and does nothing that could be lost
            drop(child.kill());
            drop(child.wait());
        }
    }
}
