//! Any bytes as a log: line splitting, decoding, dates, addresses. The prefilter must not change
//! what is found, so the log is read as a whole and line by line.

#![no_main]

use std::sync::{Arc, LazyLock};

use ban_core::filter::{Filter, Outcome, Scanner, Spec};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;

static FILTER: LazyLock<Arc<Filter>> = LazyLock::new(|| {
    let failregex = [r"^\s*failed .* from <ADDR>$", r"^<HOST> .*\[\].* 401 ", r"x=<SUBNET>"];
    let spec = Spec {
        name: "fuzz".to_owned(),
        failregex: failregex.map(str::to_owned).to_vec(),
        logtimezone: Some("UTC".to_owned()),
        ..Spec::default()
    };
    Arc::new(Filter::compile(&spec).expect("it compiles"))
});

fuzz_target!(|log: &[u8]| {
    let now = Timestamp::UNIX_EPOCH;
    let mut found = Vec::new();
    let mut scanner = Scanner::new(Arc::clone(&FILTER));
    scanner.scan(log, false, now, &mut |failure, _| found.push(failure.address));
    let mut single = Vec::new();
    let mut scanner = Scanner::new(Arc::clone(&FILTER));
    for line in log.split(|byte| *byte == b'\n') {
        if let Outcome::Matched(failure) = scanner.line(line, false, now) {
            single.push(failure.address);
        }
    }
    assert_eq!(found.len(), single.len());
});
