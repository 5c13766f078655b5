//! Reads a log as a jail does and counts: `scan FILTER FILE`. FILTER is one of the shipped
//! filters, or `DIR:NAME[OPTIONS]` of a fail2ban configuration. Prints one JSON object.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::Path,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, Result};
use ban_agent::{
    config, fail2ban,
    filter::{Counts, Filter, Scanner},
};
use jiff::Timestamp;

/// What a source hands over at once.
const BATCH: usize = 256 << 10;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (name, path) =
        args.next().zip(args.next()).context("usage: scan FILTER FILE, or scan DIR:FILTER FILE")?;
    let spec = match name.split_once(':') {
        Some((dir, call)) => fail2ban::filter(Path::new(dir), call)?,
        None => {
            let shipped = config::shipped()?.filters;
            (**shipped.get(&name).with_context(|| format!("no shipped filter {name}"))?).clone()
        }
    };
    let mut scanner = Scanner::new(Arc::new(Filter::compile(&spec)?));
    let mut file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
    let begin = Instant::now();
    let mut counts = Counts::default();
    let mut found: u64 = 0;
    let mut buffer = vec![0; BATCH];
    let mut held = 0;
    let now = Timestamp::now();
    loop {
        let read = file.read(buffer.get_mut(held..).unwrap_or_default())?;
        held += read;
        let bytes = buffer.get(..held).unwrap_or_default();
        let whole = match bytes.iter().rposition(|byte| *byte == b'\n') {
            _ if read == 0 => held,
            Some(newline) => newline + 1,
            None => held,
        };
        counts += scanner.scan(bytes.get(..whole).unwrap_or_default(), false, now, &mut |_, _| {
            found += 1;
        });
        buffer.copy_within(whole..held, 0);
        held -= whole;
        if read == 0 {
            break;
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    writeln!(
        std::io::stdout(),
        "{{\"lines\":{},\"matched\":{found},\"pending\":{},\"ignored\":{},\"seconds\":{seconds:.4}}}",
        counts.lines,
        counts.pending,
        counts.ignored,
    )?;
    Ok(())
}
