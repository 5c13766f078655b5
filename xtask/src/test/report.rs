//! Adds up what the steps of `test` did, and says it at the end.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;

/// What one step did. A check counts as one test.
#[derive(Default, Clone, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: usize,
    pub(super) failed: usize,
    /// Why, one line per test that could not run.
    pub(super) skipped: Vec<String>,
    /// The last lines of each test that failed.
    pub(super) failures: Vec<String>,
    /// What else the summary should say.
    pub(super) notes: Vec<String>,
}

impl Counts {
    pub(super) fn passed() -> Self {
        Self { passed: 1, ..Self::default() }
    }

    pub(super) fn skipped(why: impl Into<String>) -> Self {
        Self { skipped: vec![why.into()], ..Self::default() }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped.extend(other.skipped);
        self.failures.extend(other.failures);
        self.notes.extend(other.notes);
    }
}

struct Step {
    title: &'static str,
    took: Duration,
    counts: Counts,
}

#[derive(Default)]
pub(super) struct Report {
    steps: Vec<Step>,
}

impl Report {
    /// Runs one step. An error is a failure of this step; the others still run.
    pub(super) fn step(&mut self, title: &'static str, run: impl FnOnce() -> Result<Counts>) {
        println!("\n== {title}");
        let start = Instant::now();
        let counts = run().unwrap_or_else(|error| {
            println!("FAILED: {error:#}");
            Counts { failed: 1, ..Counts::default() }
        });
        self.steps.push(Step { title, took: start.elapsed(), counts });
    }

    /// Prints what failed once more, and the summary; its last line is the sum.
    pub(super) fn print(&self) -> ExitCode {
        let mut sum = Counts::default();
        for Step { title, counts, .. } in &self.steps {
            if !counts.failures.is_empty() {
                println!("\n== failures: {title}\n{}", counts.failures.join("\n"));
            }
        }
        println!("\n== summary");
        for Step { title, took, counts } in &self.steps {
            let Counts { passed, failed, skipped, notes, .. } = counts;
            let verdict = match (failed, skipped.len()) {
                (0, 0) => "ok",
                (0, _) => "SKIPPED",
                _ => "FAILED",
            };
            println!(
                "{verdict:<8} {title:<22} {passed:>4} passed {failed:>3} failed {:>3} skipped {:>4} s",
                skipped.len(),
                took.as_secs()
            );
            notes.iter().for_each(|note| println!("         {note}"));
            skipped.iter().for_each(|why| println!("         SKIPPED: {why}"));
            sum.add(counts.clone());
        }
        let strict = std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
        if strict && !sum.skipped.is_empty() {
            println!("CI=true: what was skipped must run here, so this is a failure");
        }
        println!("{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped.len());
        let good = sum.failed == 0 && (!strict || sum.skipped.is_empty());
        if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
