//! `cargo xtask`: the development loop, one file per verb.

fn main() {}
