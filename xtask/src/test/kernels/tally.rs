//! Adds up what the guest says: its own lines begin with `@`, all others are the tests'.

use super::super::{report::Counts, ring};

/// What is known so far.
#[derive(Default, Debug)]
pub(super) struct Tally {
    tests: ring::Tally,
    /// Failures when the running binary began.
    failed_before: usize,
    running: Option<String>,
    release: Option<String>,
    ended: bool,
}

impl Tally {
    /// Takes one line.
    pub(super) fn read(&mut self, line: &str) {
        let Some(word) = line.strip_prefix('@') else {
            return self.tests.read(line);
        };
        match word.split_once(' ').unwrap_or((word, "")) {
            ("kernel", release) => self.release = Some(release.to_owned()),
            ("run", test) => {
                self.running = Some(test.to_owned());
                self.failed_before = self.tests.counts.failed;
            }
            ("done", done) => {
                self.running = None;
                // One that dies without its result line has failed as well.
                if !done.ends_with(" 0") && self.tests.counts.failed == self.failed_before {
                    self.tests.counts.failed += 1;
                }
            }
            ("end", _) => self.ended = true,
            _ => self.fail(word.to_owned()),
        }
    }

    /// Notes a failure of the guest itself, for the summary.
    pub(super) fn fail(&mut self, why: String) {
        self.tests.counts.failures.push(format!("FAILED: {why}"));
        self.tests.counts.failed += 1;
    }

    /// Whether the guest got to its end.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// The sum, with the kernel that ran; a guest that did not get to its end has failed.
    pub(super) fn finish(mut self, expected: &str) -> Counts {
        if !self.ended {
            let place = self.running.take().unwrap_or_else(|| "no test".to_owned());
            self.fail(format!("the guest ended while {place} ran"));
        }
        match &self.release {
            Some(release) if release == expected => {
                self.tests.counts.notes.push(format!("ran on Linux {release}"));
            }
            Some(release) => self.fail(format!("{release} booted in the place of {expected}")),
            None => self.fail("no kernel said its name".to_owned()),
        }
        self.tests.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(output: &str) -> Counts {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.read(line));
        tally.finish("6.1.0")
    }

    const GOOD: &str = "@kernel 6.1.0\n@run packets\ntest result: ok. 3 passed; 0 failed; 0 ignored;\n\
                        @done packets 0\n@end\n";

    #[test]
    fn a_run_to_the_end_counts_and_names_its_kernel() {
        let counts = tally(GOOD);
        assert_eq!((counts.passed, counts.failed), (3, 0));
        assert_eq!(counts.notes, ["ran on Linux 6.1.0"]);
    }

    #[test]
    fn what_does_not_get_to_its_end_has_failed() {
        assert_eq!(tally("").failed, 2, "nothing at all");
        assert_eq!(tally(&GOOD.replace("@end\n", "")).failed, 1);
        assert_eq!(tally(&GOOD.replace("packets 0", "packets 139")).failed, 1, "a crash");
        assert_eq!(tally(&GOOD.replace("@kernel 6.1.0", "@kernel 6.18")).failed, 1);
        assert_eq!(tally(&format!("@broken cannot load veth.ko\n{GOOD}")).failed, 1);
        let failed = GOOD.replace("0 failed", "2 failed").replace("packets 0", "packets 101");
        assert_eq!(tally(&failed).failed, 2, "not counted twice");
    }
}
