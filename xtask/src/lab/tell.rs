//! What the lab prints: steps, and who did what, with the time since its start.

use std::{
    io::{IsTerminal as _, Write as _, stdout},
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use super::picture::Line;

#[derive(Clone)]
pub(super) struct Teller {
    start: Instant,
    colour: bool,
    told: Arc<Mutex<Vec<Line>>>,
}

impl Teller {
    pub(super) fn new() -> Self {
        let colour = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { start: Instant::now(), colour, told: Arc::default() }
    }

    /// A headline.
    pub(super) fn step(&self, text: &str) {
        let (on, off) = if self.colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        self.line(&format!("\n{on}== {text}{off}"));
        self.keep(Line::Step(text.to_owned()));
    }

    /// Who did what.
    pub(super) fn say(&self, who: &str, text: &str) {
        let colour = match who {
            _ if !self.colour => "",
            "attacker" => "\x1b[31m",
            "client" => "\x1b[32m",
            "agent" => "\x1b[36m",
            _ => "\x1b[33m",
        };
        let off = if self.colour { "\x1b[0m" } else { "" };
        let time = self.start.elapsed().as_secs_f32();
        for line in text.lines().map(shortened) {
            self.line(&format!("{time:6.1}s {colour}{who:>8}{off} │ {line}"));
            self.keep(Line::Said(time, who.to_owned(), line));
        }
    }

    /// All that was told, once.
    pub(super) fn take(&self) -> Vec<Line> {
        mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn keep(&self, line: Line) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// One write a line: several threads tell. A reader who went away is no reason to stop
    /// before the cleaning up.
    fn line(&self, text: &str) {
        let _gone = writeln!(stdout().lock(), "{text}");
    }
}

/// Log lines are long; the beginning tells who and what.
fn shortened(line: &str) -> String {
    const WIDTH: usize = 120;
    if line.chars().count() <= WIDTH {
        return line.to_owned();
    }
    line.chars().take(WIDTH - 1).chain(['…']).collect()
}
