//! Any text as an address, a prefix and a list of ports: what is taken is read back the same.

#![no_main]

use ban_core::net::{parse_ports, parse_prefix};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(prefix) = parse_prefix(text) {
        assert_eq!(parse_prefix(&prefix.to_string()).ok(), Some(prefix));
        assert_eq!(prefix, prefix.trunc(), "host bits are left");
    }
    if let Ok(ports) = parse_ports(text) {
        for range in &ports {
            assert!(range.low <= range.high);
        }
    }
});
