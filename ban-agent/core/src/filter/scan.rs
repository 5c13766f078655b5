//! One jail's way through its log: rejects lines unseen, and takes the rest apart. Keeps what has
//! to be remembered from line to line; all of it is bounded.

use std::{
    borrow::Cow,
    ops::AddAssign,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

use super::{
    Failure, Filter, carrier,
    client::{self, Client},
    document::{Documents, Read},
    groups::{self, Fields, Subject},
    multiline::Buffer,
    pattern::{Groups, Pattern},
    prefilter::Suspects,
    session::Sessions,
    shared::Start,
    time::{self, Detector, Stamp},
};

/// A line that is longer is skipped and counted: if it were cut, its writer would choose where a
/// pattern sees its end.
pub const MAX_LINE: usize = 1 << 20;
/// A line without a date has the date of the line before, if that is not older than this.
const STALE: SignedDuration = SignedDuration::from_secs(60);

/// The time that a live line without a zone tells may be this far from ours, as in fail2ban.
const SAME_CLOCK: SignedDuration = SignedDuration::from_secs(60);

/// Lines of a backlog that are looked at for the date of one that has none.
const LOOK_BACK: usize = 32;
/// Bytes of such a line that may hold it.
const DATED: usize = 512;

/// What became of some lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All lines.
    pub lines: u64,
    /// Lines that reported a failure.
    pub matched: u64,
    /// Lines that a pattern matched and an ignoreregex excused, or that name trusted proxies alone.
    pub ignored: u64,
    /// Lines that may become a failure with another line of their session.
    pub pending: u64,
    /// Lines that say that a user came in.
    pub succeeded: u64,
    /// Lines that hold the fixed text of a pattern, and that no pattern matched.
    pub near: u64,
    /// Matches whose address is none.
    pub bad_address: u64,
    /// Those of them whose end may as well be a port.
    pub unclear: u64,
    /// Times that a pattern hit its backtracking limit: the line counts as missed.
    pub limited: u64,
    /// Lines with a document that is not whole, or says something twice: no evidence.
    pub malformed: u64,
    /// Lines that were skipped because they are longer than [`MAX_LINE`].
    pub overlong: u64,
    /// Failures whose line was written now by a clock that shows another time: they are of now.
    pub other_clock: u64,
}

impl Counts {
    /// Lines that meant nothing.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.lines.saturating_sub(self.matched + self.ignored + self.pending + self.succeeded)
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.lines += other.lines;
        self.matched += other.matched;
        self.ignored += other.ignored;
        self.pending += other.pending;
        self.succeeded += other.succeeded;
        self.near += other.near;
        self.bad_address += other.bad_address;
        self.unclear += other.unclear;
        self.limited += other.limited;
        self.malformed += other.malformed;
        self.overlong += other.overlong;
        self.other_clock += other.other_clock;
    }
}

/// What a line turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No pattern matches.
    Missed,
    /// An ignoreregex excuses it, or it names trusted proxies alone.
    Ignored,
    /// It belongs to a session whose failure is not complete, or reports none (`<F-NOFAIL>`).
    Pending,
    /// A failure.
    Matched(Failure),
    /// A user came in.
    Succeeded(Failure),
}

/// A filter at work on one log.
#[derive(Debug)]
pub struct Scanner {
    filter: Arc<Filter>,
    detector: Detector,
    sessions: Sessions,
    buffer: Buffer,
    /// Time of the last line that had one.
    last: Option<Timestamp>,
    /// The lines were written before the agent followed the log: none of them is of now.
    backlog: bool,
    /// The lines are being written now.
    live: bool,
    /// The time of the line at hand is ours, because its own was of another clock.
    simulated: bool,
    counts: Counts,
    /// Time that each failregex took so far; empty: it is not asked for.
    spent: Vec<Duration>,
}

impl Scanner {
    /// Returns a scanner that has seen nothing yet.
    #[must_use]
    pub fn new(filter: Arc<Filter>) -> Scanner {
        Scanner {
            detector: Detector::new(&filter.dates),
            filter,
            sessions: Sessions::default(),
            buffer: Buffer::default(),
            last: None,
            backlog: false,
            live: false,
            simulated: false,
            counts: Counts::default(),
            spent: Vec::new(),
        }
    }

    /// The same, with a clock at each failregex.
    #[must_use]
    pub fn timed(self) -> Scanner {
        let documents = self.filter.documents.as_ref().map_or(0, |all| all.wanted.len());
        let patterns = self.filter.failregex.len() + documents;
        Scanner { spent: vec![Duration::ZERO; patterns], ..self }
    }

    /// Time that each failregex took since [`Scanner::timed`], by monotonic time; one that a line
    /// was spared, for want of its fixed text, took none.
    #[must_use]
    pub fn spent(&self) -> &[Duration] {
        &self.spent
    }

    /// Returns the filter.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Says of the lines to come whether they were written before the agent followed their log.
    /// Then one without a date has the date of the line before, however old that is; else only if
    /// that is of this minute. `live`: they are being written now, so that a date without a zone
    /// that is more than a minute off is of a clock in another zone, and the line is of now.
    /// `other`: they are of another log than the last ones.
    pub fn turn_to(&mut self, backlog: bool, live: bool, other: bool) {
        (self.backlog, self.live) = (backlog, live);
        if other {
            self.last = None;
        }
    }

    /// Reads whole lines and hands each failure to `sink`, with its line (without the newline).
    /// `stamped` lines begin with `RFC3339 SPACE`, which is their time.
    pub fn scan(
        &mut self,
        lines: &[u8],
        stamped: bool,
        now: Timestamp,
        sink: &mut impl FnMut(&Failure, &[u8]),
    ) -> Counts {
        let count = lines_in(lines);
        let mut next = |filter: &Filter, from: usize| {
            let Some(prefilter) = &filter.prefilter else {
                return Some((from, Some(Suspects::ALL)));
            };
            let hit = prefilter.next(lines, from)?;
            let before = lines.get(from..hit).unwrap_or_default();
            let start = memchr::memrchr(b'\n', before).map_or(from, |newline| from + newline + 1);
            Some((start, None))
        };
        self.scan_those(lines, count, stamped, now, &mut next, sink)
    }

    /// The same, of those lines alone that begin at `starts`, as [`SharedPrefilter`] has found
    /// them; `count`: all lines.
    ///
    /// [`SharedPrefilter`]: super::SharedPrefilter
    pub fn scan_at(
        &mut self,
        lines: &[u8],
        starts: &[Start],
        count: u64,
        stamped: bool,
        now: Timestamp,
        sink: &mut impl FnMut(&Failure, &[u8]),
    ) -> Counts {
        let mut starts = starts.iter();
        let mut next = |_: &Filter, _| {
            let start = starts.next()?;
            Some((usize::try_from(start.at).ok()?, Some(start.suspects)))
        };
        self.scan_those(lines, count, stamped, now, &mut next, sink)
    }

    /// `next`: where the next line begins that may match, at or after an offset, and which
    /// patterns, if that is known.
    fn scan_those(
        &mut self,
        lines: &[u8],
        count: u64,
        stamped: bool,
        now: Timestamp,
        next: &mut impl FnMut(&Filter, usize) -> Option<(usize, Option<Suspects>)>,
        sink: &mut impl FnMut(&Failure, &[u8]),
    ) -> Counts {
        let filter = Arc::clone(&self.filter);
        self.counts = Counts { lines: count, ..Counts::default() };
        // what was not looked at begins there
        let (mut from, mut passed) = (0, 0);
        while from < lines.len() {
            let Some((start, known)) = next(&filter, from) else { break };
            let (line, tail) = first_line(lines.get(start..).unwrap_or_default());
            from = lines.len() - tail.len();
            let asked = || filter.prefilter.as_ref().map_or(Suspects::ALL, |p| p.suspects(line));
            let suspects = known.unwrap_or_else(asked);
            if self.backlog && !stamped {
                self.look_back(lines.get(passed..start).unwrap_or_default(), now);
            }
            passed = from;
            let outcome = self.examine(&filter, line, stamped, suspects, now);
            self.count(&outcome);
            // a text that only prefregex needs says nothing of the patterns
            self.counts.near += u64::from(outcome == Outcome::Missed && suspects != Suspects::ALL);
            if let Outcome::Matched(failure) | Outcome::Succeeded(failure) = outcome {
                sink(&failure, line.strip_suffix(b"\r").unwrap_or(line));
            }
        }
        self.counts
    }

    /// Reads one line, with or without its newline, and says what it is.
    pub fn line(&mut self, line: &[u8], stamped: bool, now: Timestamp) -> Outcome {
        let filter = Arc::clone(&self.filter);
        let (line, _) = first_line(line);
        let suspects = match &filter.prefilter {
            Some(prefilter) => prefilter.suspects(line),
            None => Suspects::ALL,
        };
        self.counts = Counts { lines: 1, ..Counts::default() };
        let outcome = self.examine(&filter, line, stamped, suspects, now);
        self.count(&outcome);
        outcome
    }

    /// Reads lines of which each is there twice: the text, after `RFC3339 SPACE`, and as a
    /// container engine wrapped it.
    pub fn scan_both(
        &mut self,
        lines: &[u8],
        raw: &[u8],
        now: Timestamp,
        sink: &mut impl FnMut(&Failure, &[u8]),
    ) -> Counts {
        if !self.filter.wrapped {
            return self.scan(lines, true, now, sink);
        }
        let mut sum = Counts::default();
        let raw = raw.split_inclusive(|byte| *byte == b'\n');
        for (line, raw) in lines.split_inclusive(|byte| *byte == b'\n').zip(raw) {
            let (outcome, line) = self.either(line, raw, now);
            sum += self.counts;
            if let Outcome::Matched(failure) | Outcome::Succeeded(failure) = outcome {
                sink(&failure, first_line(line).0);
            }
        }
        self.counts = sum;
        sum
    }

    /// The same of one line; also says which of the two it was.
    pub fn either<'l>(
        &mut self,
        line: &'l [u8],
        raw: &'l [u8],
        now: Timestamp,
    ) -> (Outcome, &'l [u8]) {
        let outcome = self.line(line, true, now);
        if outcome != Outcome::Missed || !self.filter.wrapped {
            return (outcome, line);
        }
        let near = self.counts.near;
        let outcome = self.line(raw, false, now);
        self.counts.near = near.max(self.counts.near);
        (outcome, raw)
    }

    /// Returns what the last [`Scanner::scan`] or [`Scanner::line`] counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Missed => {}
            Outcome::Ignored => self.counts.ignored += 1,
            Outcome::Pending => self.counts.pending += 1,
            Outcome::Succeeded(_) => self.counts.succeeded += 1,
            Outcome::Matched(_) => {
                self.counts.matched += 1;
                self.counts.other_clock += u64::from(self.simulated);
            }
        }
    }

    fn examine(
        &mut self,
        filter: &Filter,
        line: &[u8],
        stamped: bool,
        suspects: Suspects,
        now: Timestamp,
    ) -> Outcome {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // A file that was truncated under its writer begins with NULs.
        let nulls = line.iter().take_while(|byte| **byte == 0).count();
        let line = line.get(nulls..).unwrap_or_default();
        if line.len() > MAX_LINE {
            self.counts.overlong += 1;
            return Outcome::Missed;
        }
        // a filter of documents alone has nothing to look for in other lines
        if let Some(documents) = &filter.documents
            && filter.failregex.is_empty()
            && !documents.may_stand_in(line)
        {
            return Outcome::Missed;
        }
        let text = String::from_utf8_lossy(line);
        let outcome = self.read(filter, &text, stamped, suspects, now);
        // a pattern over several lines has seen this one
        if stamped || outcome != Outcome::Missed || filter.maxlines > 1 {
            return outcome;
        }
        match carrier::carried(&text) {
            Some((text, stamped)) => self.read(filter, &text, stamped, suspects, now),
            None => outcome,
        }
    }

    fn read(
        &mut self,
        filter: &Filter,
        text: &str,
        stamped: bool,
        suspects: Suspects,
        now: Timestamp,
    ) -> Outcome {
        self.simulated = false;
        if let Some(documents) = &filter.documents
            && let Some(outcome) = self.document(filter, documents, text, stamped, suspects, now)
        {
            return outcome;
        }
        let (time, text) = if stamped { split_stamp(text) } else { self.cut_date(text, now) };
        if time.is_some() {
            self.last = time;
        }
        let mut search = Search { scanner: self, filter, suspects, time, now };
        search.line(&text)
    }

    /// Reads a line that holds a document; `None`: it holds none.
    fn document(
        &mut self,
        filter: &Filter,
        documents: &Documents,
        text: &str,
        stamped: bool,
        suspects: Suspects,
        now: Timestamp,
    ) -> Option<Outcome> {
        let (mut time, line) = match text.split_once(' ') {
            Some((stamp, rest)) if stamped => (stamp.parse().ok(), rest),
            _ => (None, text),
        };
        let start = documents.start(line)?;
        let (header, inside) = line.split_at_checked(start)?;
        let Ok(document) = documents.read(inside) else {
            self.counts.malformed += 1;
            return Some(Outcome::Missed);
        };
        // who carries lines stamps them with a clock that this host knows
        if time.is_none() && !header.is_empty() {
            time = self.stamp(header, now).time;
        }
        if let (None, Some(text)) = (time, documents.time(&document)) {
            time = time::number(text).or_else(|| self.stamp(text, now).time);
        }
        if time.is_some() {
            self.last = time;
        }
        let mut search = Search { scanner: self, filter, suspects, time, now };
        Some(search.document(documents, &document))
    }

    /// Learns the date of the last of `lines`, which were not asked about, that has one.
    fn look_back(&mut self, lines: &[u8], now: Timestamp) {
        for line in lines.rsplit(|byte| *byte == b'\n').take(LOOK_BACK) {
            let text = String::from_utf8_lossy(line.get(..DATED).unwrap_or(line));
            let stamp = self.detector.find(&text, now);
            if let Some(time) = stamp.and_then(|stamp| stamp.time) {
                self.last = Some(time);
                return;
            }
        }
    }

    /// Returns what a text says of its time, unless its clock is another one.
    fn stamp(&mut self, text: &str, now: Timestamp) -> Stamp {
        let mut stamp = self.detector.find(text, now).unwrap_or_default();
        let off = |time: Timestamp| now.duration_since(time).abs() > SAME_CLOCK;
        self.simulated = self.live && !stamp.absolute && stamp.time.is_some_and(off);
        if self.simulated {
            stamp.time = Some(now);
        }
        stamp
    }

    /// Returns the time of the line, and the line as patterns see it: without its date, with a
    /// newline.
    fn cut_date(&mut self, text: &str, now: Timestamp) -> (Option<Timestamp>, String) {
        let stamp = self.stamp(text, now);
        let recent = self.last.filter(|last| self.backlog || now.duration_since(*last) < STALE);
        let whole = stamp.time.is_none() && recent.is_some();
        let cut = if whole { 0..0 } else { stamp.cut };
        let before = text.get(..cut.start).unwrap_or_default();
        let after = text.get(cut.end..).unwrap_or_default();
        (stamp.time.or(recent), [before, after, "\n"].concat())
    }
}

/// Returns how many lines there are, the last one perhaps without its newline.
pub fn lines_in(lines: &[u8]) -> u64 {
    let newlines = memchr::memchr_iter(b'\n', lines).count();
    let open = usize::from(lines.last().is_some_and(|last| *last != b'\n'));
    u64::try_from(newlines + open).unwrap_or(u64::MAX)
}

/// Returns the first line of `buffer`, without its newline, and what follows it.
fn first_line(buffer: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr(b'\n', buffer).unwrap_or(buffer.len());
    (buffer.get(..end).unwrap_or_default(), buffer.get(end + 1..).unwrap_or_default())
}

/// Takes `RFC3339 SPACE` off a line.
fn split_stamp(text: &str) -> (Option<Timestamp>, String) {
    if let Some((stamp, rest)) = text.split_once(' ')
        && let Ok(time) = stamp.parse()
    {
        return (Some(time), format!("{rest}\n"));
    }
    (None, format!("{text}\n"))
}

/// One line on its way through the patterns.
struct Search<'s> {
    scanner: &'s mut Scanner,
    filter: &'s Filter,
    suspects: Suspects,
    time: Option<Timestamp>,
    now: Timestamp,
}

impl Search<'_> {
    fn line(&mut self, line: &str) -> Outcome {
        let several = self.filter.maxlines > 1;
        let whole: Cow<'_, str> = if several {
            Cow::Owned(self.scanner.buffer.push(line, self.filter.maxlines))
        } else {
            Cow::Borrowed(line)
        };
        // With few of them, excuses are asked for first.
        let ignore = &self.filter.ignoreregex;
        if !ignore.is_empty()
            && ignore.len() + 2 < self.filter.failregex.len()
            && self.excused(&whole)
        {
            return Outcome::Ignored;
        }
        let Some((before, text)) = self.prefix(&whole) else { return Outcome::Missed };
        if several && matches!(text, Cow::Owned(_)) {
            self.scanner.buffer.reset(&text);
        }
        self.patterns(&before, &text)
    }

    /// Returns what prefregex captured, and the text that it leaves for failregex.
    fn prefix<'t>(&mut self, whole: &'t str) -> Option<(Fields, Cow<'t, str>)> {
        let Some(prefregex) = &self.filter.prefregex else {
            return Some((Fields::new(), Cow::Borrowed(whole)));
        };
        let found = self.captures(prefregex, whole)?;
        let mut fields = groups::collect(prefregex, &found, whole);
        match fields.remove("content").filter(|content| !content.is_empty()) {
            Some(content) => Some((fields, Cow::Owned(content + "\n"))),
            None => Some((fields, Cow::Borrowed(whole))),
        }
    }

    fn patterns(&mut self, before: &Fields, text: &str) -> Outcome {
        let suspects = self.suspects;
        let patterns = self.filter.failregex.iter().enumerate();
        for (index, pattern) in patterns.filter(|(index, _)| suspects.holds(*index)) {
            let start = (!self.scanner.spent.is_empty()).then(Instant::now);
            let found = self.captures(pattern, text);
            if let (Some(start), Some(spent)) = (start, self.scanner.spent.get_mut(index)) {
                *spent += start.elapsed();
            }
            let Some(found) = found else { continue };
            if !self.filter.ignoreregex.is_empty() && self.excused(text) {
                return Outcome::Ignored;
            }
            if self.filter.maxlines > 1 {
                let skipped: Vec<_> = pattern
                    .names()
                    .filter(|(_, name)| name.starts_with("skiplines"))
                    .filter_map(|(index, _)| found.0.get(index).cloned().flatten())
                    .collect();
                self.scanner.buffer.consume(&found.span(), &skipped);
            }
            let mut fields = before.clone();
            fields.append(&mut groups::collect(pattern, &found, text));
            if let Some(outcome) = self.judge(fields, index) {
                return outcome;
            }
        }
        self.success(before, text)
    }

    /// Whether a user came in. What is excused as a failure, or told in several lines, is none.
    fn success(&mut self, before: &Fields, text: &str) -> Outcome {
        let documents = self.filter.documents.as_ref().map_or(0, |all| all.wanted.len());
        let first = self.filter.failregex.len() + documents;
        for (index, pattern) in (first..).zip(&self.filter.successregex) {
            if !self.suspects.holds(index) {
                continue;
            }
            let Some(found) = self.captures(pattern, text) else { continue };
            let mut fields = before.clone();
            fields.append(&mut groups::collect(pattern, &found, text));
            fields.remove("mlfid");
            match self.judge(fields, index) {
                Some(Outcome::Matched(failure)) if failure.address.is_some() => {
                    return Outcome::Succeeded(Failure { success: true, ..failure });
                }
                _ => {}
            }
        }
        Outcome::Missed
    }

    fn document(&mut self, documents: &Documents, document: &Read) -> Outcome {
        let first = self.filter.failregex.len();
        for (index, rule) in (first..).zip(&documents.wanted) {
            if !self.suspects.holds(index) {
                continue;
            }
            let start = (!self.scanner.spent.is_empty()).then(Instant::now);
            let fields = documents.meets(document, rule);
            if let (Some(start), Some(spent)) = (start, self.scanner.spent.get_mut(index)) {
                *spent += start.elapsed();
            }
            let excused = matches!(fields, Ok(Some(_))).then(|| documents.excuses(document));
            match (fields, excused) {
                (Ok(Some(_)), Some(Ok(true))) => return Outcome::Ignored,
                (Ok(Some(fields)), Some(Ok(false))) => {
                    if let Some(outcome) = self.judge(fields, index) {
                        return outcome;
                    }
                }
                (Ok(None), _) => {}
                _ => self.scanner.counts.limited += 1,
            }
        }
        Outcome::Missed
    }

    /// Returns what a match means; `None` if it names an address that cannot be.
    fn judge(&mut self, mut fields: Fields, pattern: usize) -> Option<Outcome> {
        let session = fields.get("mlfid").cloned();
        if let Some(id) = &session {
            fields = self.scanner.sessions.merge(id, fields, self.now);
        }
        if fields.get("nofail").is_some_and(|value| !value.is_empty()) {
            return Some(Outcome::Pending);
        }
        match groups::subject(&fields) {
            Subject::Known(mut address, id) => {
                if let Some(peer) = address {
                    address = match client::find(peer, &mut fields, &self.filter.proxies) {
                        Client::Is(client) => Some(client),
                        Client::Nobody => return Some(Outcome::Ignored),
                        Client::Bad => {
                            self.scanner.counts.bad_address += 1;
                            return None;
                        }
                    };
                }
                let time = self.time;
                let failure = groups::failure(fields, address, id, time, pattern);
                Some(Outcome::Matched(failure))
            }
            Subject::Bad => {
                self.scanner.counts.bad_address += 1;
                self.scanner.counts.unclear += u64::from(fields.contains_key("unclear"));
                None
            }
            Subject::Nobody => {
                if let Some(id) = &session {
                    self.scanner.sessions.owe(id);
                }
                Some(Outcome::Pending)
            }
        }
    }

    fn excused(&mut self, text: &str) -> bool {
        self.filter.ignoreregex.iter().any(|pattern| match pattern.is_match(text) {
            Ok(matched) => matched,
            Err(_) => {
                self.scanner.counts.limited += 1;
                false
            }
        })
    }

    fn captures(&mut self, pattern: &Pattern, text: &str) -> Option<Groups> {
        pattern.captures(text).unwrap_or_else(|_| {
            self.scanner.counts.limited += 1;
            None
        })
    }
}
