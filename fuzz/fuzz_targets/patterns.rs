//! Any text as a pattern and as a date pattern: tag expansion, translation, compilation, and a
//! few lines through what compiled.

#![no_main]

use std::sync::Arc;

use ban_core::filter::{Filter, Scanner, Spec};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (failregex, datepattern) = input;
    let spec = Spec {
        name: "fuzz".to_owned(),
        failregex: vec![format!("{failregex}<HOST>")],
        datepattern: vec![datepattern.to_owned()],
        ..Spec::default()
    };
    if let Ok(filter) = Filter::compile(&spec) {
        let log = b"Nov 20 11:00:00 from 203.0.113.7\n2026-11-20 [x] 2001:db8::1 \xff\n";
        let mut scanner = Scanner::new(Arc::new(filter));
        scanner.scan(log, false, Timestamp::UNIX_EPOCH, &mut |_, _| {});
    }
});
