//! Runs test binaries and counts what they say. Rings that touch the kernel run as root; all
//! building happens as the user, so that no file in `target` ends up owned by root.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::report::Counts;
use crate::{command, dist, layout, privilege, setup::debian};

/// Where the package ring finds the package, and the root to install it on.
const PACKAGE: &str = "BAN_AGENT_PACKAGE";
const ROOT: &str = "BAN_AGENT_ROOT";

#[derive(Clone, Copy)]
pub(super) enum Ring {
    /// Packets through the real program by `BPF_PROG_TEST_RUN`.
    Packets,
    /// Namespaces, the real agent, real daemons, real clients.
    System,
    /// The package, installed on a clean root and run by its systemd.
    Package,
}

impl Ring {
    /// How the names of its files in `tests/tests` begin.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::System => "system",
            Self::Package => "package",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Packets => "packet ring",
            Self::System => "system ring",
            Self::Package => "package ring",
        }
    }

    pub(super) fn run(self, name: Option<&str>) -> Result<Counts> {
        let names = targets(|file| file.starts_with(self.prefix()))?;
        if names.is_empty() {
            bail!("tests/tests has no {}*", self.prefix());
        }
        let binaries = built(&names)?;
        if !privilege::root_at_hand() {
            return Ok(Counts::skipped(format!(
                "the {} needs root: sudo cargo xtask test {}",
                self.title(),
                self.prefix()
            )));
        }
        privilege::bpffs()?;
        let environment = self.environment()?;
        let mut sum = Counts::default();
        for binary in binaries {
            let kept = ["RUST_LOG", "RUST_BACKTRACE", "CI", "BAN_AGENT", PACKAGE, ROOT];
            let mut test = privilege::as_root(binary, &kept)?;
            test.args(name).arg(format!("--test-threads={}", self.threads()));
            test.arg("--show-output");
            test.current_dir(layout::root().join("tests")).env("BAN_AGENT", layout::agent(false));
            test.envs(environment.iter().map(|(name, path)| (name, path)));
            sum.add(counted(&mut test)?);
        }
        Ok(sum)
    }

    /// How many of its tests run at once. The system ring's own their namespaces, folders and pins,
    /// and mostly wait; the packet ring's measure the program, and a package is installed on one root.
    fn threads(self) -> usize {
        match self {
            Self::Packets | Self::Package => 1,
            Self::System => 4,
        }
    }

    /// What its tests have to find besides.
    fn environment(self) -> Result<Vec<(&'static str, PathBuf)>> {
        match self {
            Self::Packets | Self::System => Ok(Vec::new()),
            Self::Package => Ok(vec![(PACKAGE, dist::package()?), (ROOT, debian::root()?)]),
        }
    }
}

/// Everything that needs neither root nor a namespace.
pub(super) fn unit(name: Option<&str>) -> Result<Counts> {
    let mut cargo = command::cargo();
    cargo.args(["test", "--workspace", "--exclude", "ban-ebpf", "--exclude", "tests"]);
    cargo.args(["--no-fail-fast", "--"]).args(name).arg("--show-output");
    let mut sum = counted(&mut cargo)?;
    let privileged = |file: &str| {
        ["kernel", Ring::Packets.prefix(), Ring::System.prefix(), Ring::Package.prefix()]
            .iter()
            .any(|prefix| file.starts_with(prefix))
    };
    let mut shared = command::cargo();
    shared.args(["test", "--package", "tests", "--lib"]);
    shared.args(targets(|file| !privileged(file))?.iter().flat_map(|test| ["--test", test]));
    shared.args(["--no-fail-fast", "--"]).args(name).arg("--show-output");
    sum.add(counted(&mut shared)?);
    Ok(sum)
}

/// The names of the files and folders in `tests/tests` that are wanted, in order: a binary each.
pub(super) fn targets(wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let folder = layout::root().join("tests/tests");
    let mut names = Vec::new();
    if folder.exists() {
        let entries = std::fs::read_dir(&folder)
            .with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let file = entry.with_context(|| format!("cannot read {}", folder.display()))?;
            let name = file.file_name().to_string_lossy().into_owned();
            let name = name.strip_suffix(".rs").unwrap_or(&name);
            names.extend(Some(name).filter(|name| wanted(name)).map(str::to_owned));
        }
    }
    names.sort();
    Ok(names)
}

/// Builds these tests of the crate `tests` and names their binaries.
pub(super) fn built(names: &[String]) -> Result<Vec<PathBuf>> {
    let mut cargo = command::cargo();
    cargo.args([
        "test",
        "--package",
        "tests",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    cargo.args(names.iter().flat_map(|name| ["--test", name]));
    println!("  $ {}", command::shown(&cargo));
    let done = cargo.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !done.status.success() {
        bail!("the tests do not compile");
    }
    let text = String::from_utf8_lossy(&done.stdout);
    // One JSON object a line; the crate's other binaries, which tests may start, name one too.
    let tests = text.lines().filter(|line| line.contains("\"kind\":[\"test\"]"));
    let paths = tests.filter_map(|line| line.split_once("\"executable\":\"")?.1.split('"').next());
    let paths: Vec<PathBuf> = paths.map(PathBuf::from).collect();
    if paths.len() < names.len() {
        bail!("cargo built {} of {} test binaries", paths.len(), names.len());
    }
    Ok(paths)
}

/// Runs tests, shows their output as it comes, and counts. A run that dies without its result
/// line is a failure.
fn counted(command: &mut Command) -> Result<Counts> {
    println!("  $ {}", command::shown(command));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", command::shown(command)))?;
    let mut tally = Tally::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line.context("cannot read the output of the tests")?;
            println!("{line}");
            tally.read(&line);
        }
    }
    let mut counts = tally.counts;
    let status = child.wait().context("cannot wait for the tests")?;
    if !status.success() && counts.failed == 0 {
        counts.failed = 1;
    }
    Ok(counts)
}

/// Lines of each failed test that the summary repeats: the last ones before a backtrace, where the
/// error stands.
const SHOWN: usize = 30;

/// Adds up what the tests print.
#[derive(Default, Debug)]
pub(super) struct Tally {
    pub(super) counts: Counts,
    /// Skips of the binaries that are done.
    settled: usize,
    /// Whether what failed is being repeated, and the lines of the test that is shown.
    failures: Option<VecDeque<String>>,
    /// Whether what is shown is the way to an error, which is long and says little.
    backtrace: bool,
}

impl Tally {
    /// Adds what one line of output says.
    pub(super) fn read(&mut self, line: &str) {
        let Self { counts, settled, failures, backtrace } = self;
        if line.starts_with("test result:") {
            // whatever a test has printed before
            *failures = None;
        }
        if let Some(shown) = failures {
            // the names follow once more, as a list
            if line.starts_with("---- ") || line == "failures:" {
                counts.failures.extend(shown.drain(..));
            }
            if line == "failures:" {
                *failures = None;
            } else if line.trim().eq_ignore_ascii_case("stack backtrace:") {
                *backtrace = true;
            } else if !*backtrace || line.starts_with("---- ") {
                *backtrace = false;
                shown.push_back(line.to_owned());
                if shown.len() > SHOWN {
                    // the name stays
                    shown.remove(1);
                }
            }
        } else if line == "failures:" {
            *failures = Some(VecDeque::new());
        } else if let Some(why) = line.strip_prefix("SKIPPED") {
            counts.skipped.push(why.trim_start_matches(':').trim().to_owned());
        } else if let Some(result) = line.strip_prefix("test result:") {
            let number = |word: &str| -> usize {
                let part = result.split([';', '.']).find(|part| part.trim_end().ends_with(word));
                part.and_then(|part| part.split_whitespace().next()?.parse().ok()).unwrap_or(0)
            };
            // A test that says SKIPPED goes on to return, which libtest takes for a pass.
            let said = counts.skipped.len() - *settled;
            counts.passed += number("passed").saturating_sub(said);
            counts.failed += number("failed");
            for _ in 0..number("ignored") {
                counts.skipped.push("a test marked #[ignore]".to_owned());
            }
            *settled = counts.skipped.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(output: &str) -> Counts {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.read(line));
        tally.counts
    }

    #[test]
    fn results_add_up() {
        let counts = count(
            "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.10s\n\
             test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.00s\n",
        );
        assert_eq!((counts.passed, counts.failed, counts.skipped.len()), (14, 1, 1));
    }

    #[test]
    fn a_skip_is_not_a_pass() {
        let counts = count(
            "SKIPPED: no bpffs\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!((counts.passed, counts.skipped), (0, vec!["no bpffs".to_owned()]));
    }

    #[test]
    fn what_a_test_prints_hides_no_result() {
        let counts = count(
            "failures:\ntest result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!(counts.passed, 3);
    }

    #[test]
    fn what_failed_is_kept_for_the_summary() {
        let long: String = (0..100).map(|line| format!("line {line}\n")).collect();
        let counts = count(&format!(
            "test a ... FAILED\n\nsuccesses:\n\n---- b stdout ----\nwell\n\nfailures:\n\n\
             ---- a stdout ----\n{long}Error: no\n\nStack backtrace:\n{long}\n\nfailures:\n    a\n\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n"
        ));
        assert_eq!((counts.passed, counts.failed), (1, 1));
        let shown: Vec<&str> = counts.failures.iter().map(String::as_str).collect();
        assert!(shown.contains(&"---- a stdout ----") && shown.contains(&"Error: no"), "{shown:?}");
        assert!(shown.len() <= SHOWN + 1 && !shown.contains(&"well"), "{shown:?}");
    }
}
