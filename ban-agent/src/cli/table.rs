//! Tables that fit the terminal: numbers to the right, long words cut, and columns left out before a
//! line would wrap. What is piped is cut nowhere.

use std::io::IsTerminal as _;

/// Between two columns.
const GAP: usize = 2;
/// What a column that may be cut keeps at least.
const LEAST: usize = 12;

/// One column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    name: &'static str,
    right: bool,
    cut: bool,
    /// The higher, the sooner it is left out; 0: never.
    spare: u8,
}

impl Column {
    /// Text, whole.
    pub(super) const fn text(name: &'static str) -> Column {
        Column { name, right: false, cut: false, spare: 0 }
    }

    /// Text that may be cut.
    pub(super) const fn long(name: &'static str) -> Column {
        Column { cut: true, ..Column::text(name) }
    }

    /// A number.
    pub(super) const fn number(name: &'static str) -> Column {
        Column { right: true, ..Column::text(name) }
    }

    /// Left out where there is no room; those with the highest `rank` first.
    pub(super) const fn spare(self, rank: u8) -> Column {
        Column { spare: rank, ..self }
    }
}

/// How wide the terminal is; `None`: it is no terminal, and nothing has to fit.
pub(super) fn width() -> Option<usize> {
    let out = std::io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&out).ok()?;
    (size.ws_col > 0).then(|| usize::from(size.ws_col))
}

/// The rows, with a cell for each column, below the columns' names. A column without anything in it is
/// left out.
pub(super) fn fit(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> String {
    let length = |text: &str| text.chars().count();
    let cell =
        |row: &'_ [String], column: usize| row.get(column).map_or("", String::as_str).to_owned();
    let natural: Vec<usize> = (0..columns.len())
        .map(|column| rows.iter().map(|row| length(&cell(row, column))).max().unwrap_or(0))
        .collect();
    // (column, its full width)
    let mut shown: Vec<(usize, Column, usize)> = columns
        .iter()
        .zip(&natural)
        .enumerate()
        .filter(|(_, (column, widest))| **widest > 0 || column.spare == 0)
        .map(|(index, (column, widest))| (index, *column, length(column.name).max(*widest)))
        .collect();
    let least = |column: &Column, full: usize| if column.cut { full.min(LEAST) } else { full };
    let gaps = |count: usize| GAP * count.saturating_sub(1);
    let need = |shown: &[(usize, Column, usize)]| {
        let cells: usize = shown.iter().map(|(_, column, full)| least(column, *full)).sum();
        cells + gaps(shown.len())
    };
    let mut left = usize::MAX;
    if let Some(width) = width {
        let mut out = Vec::new();
        while need(&shown) > width {
            let spare = shown.iter().enumerate().filter(|(_, (_, column, _))| column.spare > 0);
            let Some((place, _)) = spare.max_by_key(|(_, (_, column, _))| column.spare) else {
                break;
            };
            out.push(shown.remove(place));
        }
        // a narrow one may fit where a wide one did not
        while let Some(column) = out.pop() {
            let place = shown.partition_point(|(index, ..)| *index < column.0);
            shown.insert(place, column);
            if need(&shown) > width {
                shown.remove(place);
            }
        }
        left = width.saturating_sub(need(&shown));
    }
    for (_, column, full) in &mut shown {
        let kept = least(column, *full);
        let more = (*full - kept).min(left);
        left -= more;
        *full = kept + more;
    }
    let mut text = String::new();
    let mut line = |cells: Vec<String>| {
        let cells = cells.iter().zip(&shown).map(|(cell, (_, column, width))| {
            let cell = cut(cell, *width);
            if column.right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    };
    line(shown.iter().map(|(_, column, _)| column.name.to_owned()).collect());
    for row in rows {
        line(shown.iter().map(|(index, ..)| cell(row, *index)).collect());
    }
    text
}

/// At most so many characters; `…` stands for the rest.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// A table for a program: one line of names, then the rows, quoted as RFC 4180 has it.
pub(super) fn csv(names: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = names.join(",");
    text.push('\n');
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| quoted(cell)).collect();
        text.push_str(&cells.join(","));
        text.push('\n');
    }
    text
}

/// A spreadsheet takes what begins like a formula for one: a quote before it keeps it text.
fn quoted(cell: &str) -> String {
    let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let cell = if formula { format!("'{cell}") } else { cell.to_owned() };
    if cell.contains(['"', ',', '\n', '\r']) {
        return format!("\"{}\"", cell.replace('"', "\"\""));
    }
    cell
}

/// `1 ban`, `2 bans`.
pub(super) fn plural(count: u64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

/// `999`, `12.3k`, `4.5M`: what stands in a narrow column.
pub(super) fn short(count: u64) -> String {
    let mut value = count as f64;
    if count < 10_000 {
        return count.to_string();
    }
    for unit in ["k", "M", "G", "T"] {
        value /= 1000.0;
        if value < 999.95 {
            return format!("{value:.1}{unit}");
        }
    }
    format!("{value:.0}T")
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::text("ADDRESS"),
        Column::number("PACKETS"),
        Column::text("COUNTRY").spare(1),
        Column::long("REASON").spare(2),
    ];

    fn rows() -> Vec<Vec<String>> {
        let row = |cells: [&str; 4]| cells.map(ToOwned::to_owned).to_vec();
        vec![
            row(["192.0.2.1", "7", "DE", "it went on and on about a password"]),
            row(["2001:db8::1", "12345", "", "short"]),
        ]
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_as_long_as_columns_can_go() {
        for width in 20..100 {
            let text = fit(&COLUMNS, &rows(), Some(width));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
        }
        assert_eq!(
            fit(&COLUMNS, &rows(), Some(20)),
            "ADDRESS      PACKETS\n192.0.2.1          7\n2001:db8::1    12345\n"
        );
        let wide = fit(&COLUMNS, &rows(), None);
        assert!(wide.contains("it went on and on about a password"), "{wide}");
        let narrow = fit(&COLUMNS, &rows(), Some(46));
        assert!(narrow.contains("DE       it went on and…"), "{narrow}");
    }

    #[test]
    fn a_column_without_anything_in_it_is_left_out() {
        let rows = vec![vec!["192.0.2.1".to_owned(), "7".to_owned(), String::new(), String::new()]];
        assert_eq!(fit(&COLUMNS, &rows, None), "ADDRESS    PACKETS\n192.0.2.1        7\n");
    }

    #[test]
    fn a_spreadsheet_computes_nothing() {
        let row = ["=1+1", "a,\"b\"", "x"].map(ToOwned::to_owned).to_vec();
        assert_eq!(csv(&["a", "b", "c"], [row]), "a,b,c\n'=1+1,\"a,\"\"b\"\"\",x\n");
    }

    #[test]
    fn large_numbers_are_short() {
        for (count, expected) in [(0, "0"), (9999, "9999"), (10_000, "10.0k"), (1_234_567, "1.2M")]
        {
            assert_eq!(short(count), expected);
        }
        assert_eq!(short(u64::MAX), "18446744T");
    }
}
