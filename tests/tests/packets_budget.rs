//! The program's size against what is written down in `budget.txt`: growth of more than a tenth
//! is either a mistake or a decision, and a decision is a change of that file. So is shrinking, or
//! what it was larger by could grow back unnoticed.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]

use ban_agent::dataplane::{Loaded, ProgramSize, release};
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
    let (budget, range) = known.map_or((&budgets[0].1, 0..=150), |(_, size)| (size, 90..=110));
    if let Some(wrong) = outside(&size, budget, &range) {
        panic!("{wrong}, on {kernel}: shave, or change tests/budget.txt");
    }
    // Checked as well: that it would notice.
    let more = ProgramSize { translated: size.translated / 8 * 10, ..size };
    let less = ProgramSize { jited: size.jited / 4 * 3, ..size };
    assert!(
        outside(&more, &size, &(90..=110)).is_some()
            && outside(&less, &size, &(90..=110)).is_some()
    );
}

/// What is outside `range`, percent of what is planned.
fn outside(
    found: &ProgramSize,
    planned: &ProgramSize,
    range: &std::ops::RangeInclusive<u64>,
) -> Option<String> {
    let pairs = [
        ("verified instructions", found.verified, planned.verified),
        ("bytes of BPF", found.translated, planned.translated),
        ("bytes of machine code", found.jited, planned.jited),
    ];
    // Linux before 5.16 does not tell what it verified.
    pairs.into_iter().filter(|(.., planned)| *planned > 0).find_map(|(what, found, planned)| {
        let percent = u64::from(found) * 100 / u64::from(planned);
        (!range.contains(&percent)).then(|| format!("{found} {what}, planned are {planned}"))
    })
}
