//! What stands before a document in its line: nothing, or the header of syslog (RFC 3164, RFC 5424,
//! with an ISO date), of the journal as text, of a container's engine (CRI), or Caddy's own. Whatever else stands
//! there may be a client's text, so that such a line holds no document.

use std::sync::OnceLock;

use regex::Regex;

use super::Form;

/// A header is no longer than this.
const MAX: usize = 512;

const HEADER: &str = r#"(?x)^
    (?: <\d{1,3}> )?
    (?:
        # RFC 5424, with structured data
        1\x20(?:\S+\x20){5} (?: - | (?:\[[^\]\{=]*(?:="[^"\{]*"[^\]\{=]*)*\])+ ) \x20(?:\u{feff})?
    |
        # the engine of a container, a whole line
        \d{4}-\d\d-\d\dT\S+\x20std(?:out|err)\x20F\x20(?:\w+\x20)?
    |
        # a time alone
        \d{4}-\d\d-\d\d[T\x20]\d\d:\d\d:\d\d\S*\x20
    |
        # Caddy's `format console` (zap, zapcore/console_encoder.go)
        \d{4}/\d\d/\d\d\x20\d\d:\d\d:\d\d(?:\.\d+)?\t(?:\x1b\[\d+m)?[A-Z]+(?:\x1b\[0m)?\thttp\.log\.access\S*\t[\w\x20]+\t
    |
        (?:
            (?:[A-Z][a-z]{2}\x20)? [A-Z][a-z]{2}\x20[\x20\d]\d\x20\d\d:\d\d:\d\d(?:\.\d+)? (?:\x20\d{4})? \x20
        |
            \d{4}-\d\d-\d\d[T\x20]\d\d:\d\d:\d\d\S*\x20
        )?
        (?:[\w.:-]+\x20){0,2} [\w./@-]+ (?:\[\d+\])? :\x20(?:@cee:\x20?)?
    )
$"#;

/// Returns the document's first byte.
pub(super) fn start(line: &str, form: Form) -> Option<usize> {
    match form {
        Form::Json => {
            let at = line.find('{').filter(|at| *at <= MAX)?;
            let header = line.get(..at)?;
            (header.trim().is_empty() || is_header(header)).then_some(at)
        }
        Form::Logfmt => {
            // the first word with a `=` begins it
            let pair = line.find('=').filter(|at| *at <= MAX)?;
            let before = line.get(..pair)?;
            let mut at = before.rfind([' ', '\t']).map_or(0, |space| space + 1);
            // structured data of RFC 5424 has pairs, too
            if before.get(at..).is_some_and(|word| word.is_empty()) {
                return None;
            }
            if before.contains('[')
                && before.starts_with('<')
                && let Some(end) = line.find("] ")
            {
                at = end + 2;
            }
            let header = line.get(..at)?;
            (header.trim().is_empty() || is_header(header)).then_some(at)
        }
    }
}

fn is_header(header: &str) -> bool {
    static COMPILED: OnceLock<Option<Regex>> = OnceLock::new();
    let header_regex = COMPILED.get_or_init(|| Regex::new(HEADER).ok());
    header_regex.as_ref().is_some_and(|regex| regex.is_match(header))
}
