//! Any text as lines with documents: nothing panics, and an address that is found stands in the text.

#![no_main]

use std::sync::{Arc, LazyLock};

use ban_core::filter::{Document, Filter, Form, Scanner, Spec, Wanted};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;

fn filter(form: Form) -> Arc<Filter> {
    let wanted = vec![
        [("a".to_owned(), vec![Wanted::Exactly("1".to_owned())])].into(),
        [("b".to_owned(), vec![Wanted::Matches("x.*y".to_owned())])].into(),
    ];
    let document = Document {
        form,
        address: vec!["c".to_owned(), "d.0.e".to_owned()],
        time: vec!["t".to_owned()],
        fields: [("user".to_owned(), "u".to_owned()), ("xff".to_owned(), "f".to_owned())].into(),
        wanted,
        unless: vec![[("g".to_owned(), vec![Wanted::Exactly("true".to_owned())])].into()],
    };
    let spec = Spec { document: Some(document), ..Spec::default() };
    Arc::new(Filter::compile(&spec).expect("a filter"))
}

static FILTERS: LazyLock<[Arc<Filter>; 2]> =
    LazyLock::new(|| [Form::Json, Form::Logfmt].map(filter));

fuzz_target!(|text: &[u8]| {
    for filter in FILTERS.iter() {
        let mut scanner = Scanner::new(Arc::clone(filter));
        let counts = scanner.scan(text, false, Timestamp::UNIX_EPOCH, &mut |failure, _| {
            assert!(failure.address.is_some());
        });
        assert!(counts.matched <= counts.lines);
    }
});
