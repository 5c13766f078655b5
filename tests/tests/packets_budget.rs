//! The program's size against what is written down in `budget.txt`: growth of more than a tenth
//! is either a mistake or a decision, and a decision is a change of that file.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]

use ban_agent::kernel::{Loaded, ProgramSize, release};
use tests::{process::Pins, require_root};

const BUDGET: &str = include_str!("../budget.txt");

/// Kernel, then the size on it.
fn budgets() -> Vec<(String, ProgramSize)> {
    let lines = BUDGET.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [kernel, verified, translated, jited] = fields.as_slice() else {
                panic!("not a line of the budget: {line}")
            };
            let number = |text: &str| text.parse().unwrap();
            let size = ProgramSize {
                verified: number(verified),
                translated: number(translated),
                jited: number(jited),
            };
            ((*kernel).to_owned(), size)
        })
        .collect()
}

#[test]
fn the_program_keeps_to_its_budget() {
    require_root!("the instruction budget");
    let pins = Pins::new(&format!("ban-test-budget-{}", std::process::id()));
    std::fs::create_dir(pins.path()).unwrap();
    let size = Loaded::new(pins.path(), 64, 1).unwrap().size().unwrap();
    let kernel: String = release().split('.').take(2).collect::<Vec<_>>().join(".");
    println!("{kernel} {} {} {}", size.verified, size.translated, size.jited);
    let budgets = budgets();
    let known = budgets.iter().find(|(of, _)| *of == kernel);
    // Verifiers and JITs differ: a kernel that is not in the file may need half as much again.
    let (budget, percent) = known.map_or((&budgets[0].1, 150), |(_, size)| (size, 110));
    for (what, found, planned) in [
        ("verified instructions", size.verified, budget.verified),
        ("bytes of BPF", size.translated, budget.translated),
        ("bytes of machine code", size.jited, budget.jited),
    ] {
        assert!(
            u64::from(found) * 100 <= u64::from(planned) * percent,
            "{found} {what} on {kernel}, planned are {planned}: shave, or change tests/budget.txt"
        );
    }
}
