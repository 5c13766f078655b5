//! Reads one file in the dialect of Python's configparser. Knows sections, keys and lines;
//! nothing of what they mean.

use std::{collections::BTreeMap, path::Path, sync::Arc};

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<Path>,
    /// The line, from 1.
    pub line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// A value as it was written; lines of one value are joined by newlines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub text: String,
    pub place: Place,
}

/// The keys of a section, in lower case.
pub(super) type Section = BTreeMap<String, Value>;

/// The sections of a file; `DEFAULT` is one of them.
pub(super) type File = BTreeMap<String, Section>;

/// What is wrong with a file, and where.
pub(super) type Problem = (Place, String);

/// Parses the text of `file`.
pub(super) fn parse(file: &Path, text: &str) -> Result<File, Problem> {
    let mut reader = Reader {
        file: Arc::from(file),
        sections: File::new(),
        section: None,
        key: None,
        indent: 0,
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        reader.line(index + 1, line)?;
    }
    for value in reader.sections.values_mut().flat_map(Section::values_mut) {
        value.text.truncate(value.text.trim_end().len());
    }
    Ok(reader.sections)
}

struct Reader {
    file: Arc<Path>,
    sections: File,
    section: Option<String>,
    key: Option<String>,
    /// Indentation of the line that the key stood on: deeper lines go on with its value.
    indent: usize,
}

impl Reader {
    fn line(&mut self, number: usize, line: &str) -> Result<(), Problem> {
        let text = without_comment(line).trim();
        if text.is_empty() {
            // An empty line may be part of a value; a comment is not.
            if line.trim().is_empty()
                && let Some(value) = self.value()
            {
                value.text.push('\n');
            }
            return Ok(());
        }
        let indent = line.len() - line.trim_start().len();
        if indent > self.indent
            && let Some(value) = self.value()
        {
            value.text.push('\n');
            value.text.push_str(text);
            return Ok(());
        }
        self.indent = indent;
        let place = Place { file: Arc::clone(&self.file), line: number };
        if let Some(name) = text.strip_prefix('[').and_then(|rest| rest.rsplit_once(']')) {
            let name = name.0.to_owned();
            self.sections.entry(name.clone()).or_default();
            self.section = Some(name);
            self.key = None;
            return Ok(());
        }
        self.option(text, place)
    }

    fn option(&mut self, text: &str, place: Place) -> Result<(), Problem> {
        let Some((key, value)) = text.split_once(['=', ':']) else {
            return Err((place, format!("'{text}' is neither a [section] nor a key = value")));
        };
        let key = key.trim().to_lowercase();
        let Some(section) = self.section.as_ref().and_then(|name| self.sections.get_mut(name))
        else {
            return Err((place, format!("'{key}' stands before any [section]")));
        };
        if let Some(known) = section.get(&key) {
            let first = known.place.line;
            return Err((place, format!("'{key}' is set twice, first on line {first}")));
        }
        section.insert(key.clone(), Value { text: value.trim().to_owned(), place });
        self.key = Some(key);
        Ok(())
    }

    fn value(&mut self) -> Option<&mut Value> {
        self.sections.get_mut(self.section.as_ref()?)?.get_mut(self.key.as_ref()?)
    }
}

/// Returns the line without its comment: `#` or `;` at its beginning, `;` also after white space.
fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with(['#', ';']) {
        return "";
    }
    let mut after_space = true;
    for (at, c) in line.char_indices() {
        if c == ';' && after_space {
            return line.get(..at).unwrap_or(line);
        }
        after_space = c.is_whitespace();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, section: &str, key: &str, expected: &str) {
        let file = parse(Path::new("x.conf"), text).unwrap();
        assert_eq!(file[section][key].text, expected, "{text}");
    }

    #[test]
    fn values_and_comments() {
        check("[a]\nKey = b c", "a", "key", "b c");
        check("[a]\nkey: b=c", "a", "key", "b=c");
        check("[a]\nkey = b ; note", "a", "key", "b");
        check("[a]\nkey = b;c # d", "a", "key", "b;c # d");
        check("[a]\nkey = b\n  c\n# note\n  # note\n\n  d\n\n[e]", "a", "key", "b\nc\n\nd");
        check("[a]\nkey =\n  b\nnext = c", "a", "key", "\nb");
        check("\u{feff}[a]\nkey =", "a", "key", "");
    }

    #[test]
    fn problems_have_a_line() {
        for (text, line, what) in [
            ("key = 1", 1, "'key' stands before any [section]"),
            ("[a]\nnonsense", 2, "'nonsense' is neither a [section] nor a key = value"),
            ("[a]\nb = 1\nb = 2", 3, "'b' is set twice, first on line 2"),
        ] {
            let (place, message) = parse(Path::new("x.conf"), text).unwrap_err();
            assert_eq!((place.line, message.as_str()), (line, what));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "[ \\n\\[\\]=:;#a-z]{0,80}") {
            let _ = parse(Path::new("x.conf"), &text);
        }
    }
}
