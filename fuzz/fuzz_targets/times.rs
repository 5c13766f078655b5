//! Any text before an address, under each kind of date pattern: whatever the stamp, the address is
//! found, and no line kills the engine.

#![no_main]

use std::sync::{Arc, LazyLock};

use ban_core::filter::{Filter, Scanner, Spec};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;

static FILTERS: LazyLock<Vec<Arc<Filter>>> = LazyLock::new(|| {
    let patterns: [&[&str]; 6] = [
        &[],
        &["{^LN-BEG}"],
        &["EPOCH"],
        &["TAI64N"],
        &["%d/%b/%Y:%H:%M:%S %z"],
        &["%y%m%d %k:%M"],
    ];
    let filter = |datepattern: &&[&str]| {
        let spec = Spec {
            name: "fuzz".to_owned(),
            failregex: vec!["<HOST>$".to_owned()],
            datepattern: datepattern.iter().map(|&text| text.to_owned()).collect(),
            logtimezone: Some("Europe/Berlin".to_owned()),
            ..Spec::default()
        };
        Arc::new(Filter::compile(&spec).expect("it compiles"))
    };
    patterns.iter().map(filter).collect()
});

fuzz_target!(|input: (i64, &[u8])| {
    let (now, stamp) = input;
    let Ok(now) = Timestamp::from_second(now) else { return };
    let line = [stamp, b" 203.0.113.7\n"].concat();
    for filter in FILTERS.iter() {
        let mut scanner = Scanner::new(Arc::clone(filter));
        scanner.scan(&line, false, now, &mut |_, _| {});
    }
});
