//! The filters and jails inside the binary: `dist/shipped/KIND/SERVICE.toml` of the source tree.
//! The build script finds them; there is no list by hand.

/// Name and text of each, by name.
pub(super) const SHIPPED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/shipped.rs"));

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn no_two_files_define_the_same() {
        let mut seen: BTreeMap<String, &str> = BTreeMap::new();
        for (file, text) in SHIPPED {
            let table: toml::Table = text.parse().expect(file);
            for (kind, section) in &table {
                for name in section.as_table().expect(file).keys() {
                    let other = seen.insert(format!("{kind}.{name}"), file);
                    assert_eq!(other, None, "{kind}.{name} is in {file}, too");
                }
            }
        }
    }
}
