//! Any text as a filter of a fail2ban configuration: sections, values, interpolation, tags.

#![no_main]

use std::fs;

use ban_agent::fail2ban;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    // An include could name any file of this machine.
    if text.windows(8).any(|word| word.eq_ignore_ascii_case(b"includes")) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("filter.d")).expect("a folder");
    fs::write(folder.path().join("filter.d/fuzz.conf"), text).expect("a file");
    let _ = fail2ban::filter(folder.path(), "fuzz[mode=a]");
});
