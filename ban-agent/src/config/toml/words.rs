//! `[words]`: lists that patterns refer to as `<LIST:NAME>`. A list stands in the configuration, or in
//! a file with a word a line; some are part of the binary (`dist/lists/`).

use std::{collections::BTreeMap, fs, path::PathBuf};

use super::{
    Error,
    layer::{self, Layer},
    raw::OneOrMany,
};
use crate::filter;

/// A file that is longer is no list of words.
const MAX: u64 = 8 << 20;

macro_rules! list {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../../dist/lists/", $name, ".list")))
    };
}

/// Those inside the binary: name and text.
const SHIPPED: &[(&str, &str)] = &[list!("probe-paths")];

/// Returns the lists that the patterns of a filter name; files that were read go to `files`.
///
/// # Errors
/// The file that cannot be read. A list that is not there is told by its pattern.
pub(super) fn of_filter(
    layers: &[Layer],
    spec: &filter::Spec,
    lists: &BTreeMap<String, OneOrMany>,
    files: &mut Vec<PathBuf>,
) -> Result<filter::Words, Error> {
    let mut found = filter::Words::new();
    for name in spec.lists() {
        let shipped = SHIPPED.iter().find(|(known, _)| *known == name);
        let words = match (lists.get(name), shipped) {
            (Some(OneOrMany::Many(list)), _) => list.clone(),
            (Some(OneOrMany::One(path)), _) => {
                let path = PathBuf::from(path.strip_prefix("file:").unwrap_or(path));
                let words = read(layers, name, &path)?;
                files.push(path);
                words
            }
            (None, Some((_, text))) => words(text),
            (None, None) => continue,
        };
        found.insert(name.to_owned(), words.into());
    }
    Ok(found)
}

/// One word a line; a line that begins with `#` is a comment.
fn words(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim_end);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(Into::into).collect()
}

fn read(layers: &[Layer], name: &str, path: &PathBuf) -> Result<Vec<String>, Error> {
    let refused = |why: String| {
        let message = format!("list '{name}': cannot read {}: {why}", path.display());
        let hint = "name a file with a word a line, or write the words: NAME = [\"/.env\"]";
        layer::invalid(layers, &["words", name], message, Some(hint.into()))
    };
    let meta = fs::metadata(path).map_err(|error| refused(error.to_string()))?;
    if !path.is_absolute() || !meta.is_file() || meta.len() > MAX {
        return Err(refused(format!("it is no whole path of a file of at most {MAX} bytes")));
    }
    fs::read_to_string(path).map_err(|error| refused(error.to_string())).map(|text| words(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_lists_hold_paths_that_nobody_asks_for_by_accident() {
        for (name, text) in SHIPPED {
            let words = words(text);
            assert!(words.len() > 50, "{name}");
            for word in &words {
                assert!(word.starts_with('/') && word.len() > 3, "{name}: {word}");
                let wanted = ["/favicon", "/robots", "/.well-known", "/sitemap", "/apple-touch"];
                assert!(!wanted.iter().any(|trap| word.starts_with(trap)), "{name}: {word}");
            }
            assert!(words.is_sorted(), "{name}: sort it with LC_ALL=C");
        }
    }
}
