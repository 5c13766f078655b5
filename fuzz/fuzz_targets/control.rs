//! Any bytes as a request on the control socket: what is taken is written and read back the same.

#![no_main]

use ban_agent::control::Request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    if let Ok(request) = serde_json::from_slice::<Request>(line) {
        let text = serde_json::to_string(&request).expect("a request is JSON");
        let again: Request = serde_json::from_str(&text).expect("it reads its own words");
        assert_eq!(text, serde_json::to_string(&again).expect("a request is JSON"));
    }
});
