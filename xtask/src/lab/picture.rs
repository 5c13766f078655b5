//! The story of the lab as a picture: an SVG that looks like the terminal it was told on.

use std::fmt::Write as _;

/// Lines kept under one headline, from its beginning and its end: docs/lab.md has them all.
const FIRST: usize = 2;
const LAST: usize = 3;
/// Characters of a line.
const COLUMNS: usize = 100;
/// Pixels from one line to the next, and around all of them.
const LINE: usize = 19;
const MARGIN: usize = 18;

/// One line that was told.
pub(super) enum Line {
    /// A headline.
    Step(String),
    /// Seconds since the start, who, and what.
    Said(f32, String, String),
}

/// Draws the story: headlines, and the lines under each that matter most.
pub(super) fn svg(story: &[Line]) -> String {
    let mut body = String::new();
    let mut row = 0;
    let mut put = |text: &str| {
        row += 1;
        let y = MARGIN + row * LINE;
        let _infallible = writeln!(body, "<text x=\"{MARGIN}\" y=\"{y}\">{text}</text>");
    };
    for (number, part) in story.chunk_by(|_, next| matches!(next, Line::Said(..))).enumerate() {
        if number > 0 {
            put("");
        }
        let cut = FIRST + 1..part.len().saturating_sub(LAST).max(FIRST + 1);
        for (at, line) in part.iter().enumerate() {
            match line {
                _ if at == cut.start && !cut.is_empty() => put("<tspan class=\"time\">…</tspan>"),
                _ if cut.contains(&at) => {}
                Line::Step(text) => {
                    put(&format!("<tspan class=\"step\">== {}</tspan>", escaped(text)));
                }
                Line::Said(time, who, text) => put(&format!(
                    "<tspan class=\"time\">{time:6.1}s</tspan> <tspan class=\"{who}\">{who:>8}</tspan> │ {}",
                    escaped(without_stamp(text))
                )),
            }
        }
    }
    let (width, height) = (2 * MARGIN + COLUMNS * 8, 2 * MARGIN + (row + 1) * LINE);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" xml:space=\"preserve\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\">\n\
         <title>ban-agent: an attacker, a ban, its end</title>\n\
         <style>text {{ font: 13px ui-monospace, Menlo, Consolas, monospace; fill: #d5d8df; \
         white-space: pre }} .step {{ fill: #ffffff; font-weight: bold }} .time {{ fill: #858b99 }} \
         .attacker {{ fill: #ff7b72 }} .client {{ fill: #7ee787 }} .agent {{ fill: #79c0ff }} \
         .operator, .counter, .edge {{ fill: #e3b341 }}</style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#15181f\"/>\n{body}</svg>\n"
    )
}

/// A line of the agent's log without `[TIME LEVEL MODULE] `: the picture has its own time.
fn without_stamp(text: &str) -> &str {
    let told = text
        .strip_prefix('[')
        .filter(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    told.and_then(|rest| rest.split_once("] ")).map_or(text, |(_, told)| told)
}

/// Cut to the width of the picture, and without anything that SVG would read.
fn escaped(text: &str) -> String {
    // "999.9s attacker │ " goes before it
    const BEFORE: usize = 19;
    let mut out = String::new();
    for (at, letter) in text.chars().enumerate() {
        match letter {
            _ if at == COLUMNS - BEFORE => {
                out.push('…');
                break;
            }
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            letter if letter.is_control() => out.push(' '),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_stays_text() {
        let said = |text: &str| Line::Said(1.0, "attacker".to_owned(), text.to_owned());
        let story = [Line::Step("a & b".to_owned()), said("<script>\x1b"), said(&"x".repeat(500))];
        let drawn = svg(&story);
        assert!(drawn.contains("== a &amp; b"), "{drawn}");
        assert!(drawn.contains("&lt;script&gt; <"), "{drawn}");
        assert!(drawn.lines().all(|line| line.len() < 600), "{drawn}");
    }

    #[test]
    fn a_long_step_keeps_its_ends() {
        let said =
            |n: usize| Line::Said(0.0, "agent".to_owned(), format!("[2026-11-20 I] line {n}."));
        let mut story = vec![Line::Step("first".to_owned())];
        story.extend((0..9).map(said));
        story.push(Line::Step("second".to_owned()));
        story.extend((10..15).map(said));
        let drawn = svg(&story);
        let kept: Vec<_> = (0..15).filter(|n| drawn.contains(&format!("│ line {n}."))).collect();
        assert_eq!(kept, [0, 1, 6, 7, 8, 10, 11, 12, 13, 14]);
        assert_eq!(drawn.matches('…').count(), 1, "{drawn}");
    }
}
