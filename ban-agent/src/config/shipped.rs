//! The filters and jails inside the binary: `dist/shipped/` of the source tree.

/// Name and text of each.
pub(super) const SHIPPED: &[(&str, &str)] = &[];
