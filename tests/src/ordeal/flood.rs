//! Packets from banned addresses without a pause, and somebody on the receiving side who counts
//! what came through.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{ALLOWED, Scene};
use crate::{
    frame::{MARK, Packet, Wire, ethernet},
    random::Random,
    stage::EDGE,
};

/// Packets between two breaths.
const BURST: usize = 24;
const BREATH: Duration = Duration::from_millis(1);

/// Sends until told to stop: everybody who is banned, and one who never may be.
pub(super) fn send(scene: &Scene<'_>, mut random: Random) -> Result<()> {
    let mut wire = Wire::open(&scene.stage.outside)?;
    let mut turn = 0_u64;
    while !scene.stop.load(Ordering::Acquire) {
        let sources: Vec<IpAddr> = {
            let book = scene.book.open();
            (0..BURST)
                .filter_map(|_| {
                    let draw = random.below(u64::MAX);
                    book.pick(|length| usize::try_from(draw).unwrap_or(0) % length.max(1))
                })
                .collect()
        };
        for source in &sources {
            wire.send(&frame(scene, *source)?)?;
        }
        turn += 1;
        let allowed = turn.is_multiple_of(8);
        if allowed {
            wire.send(&frame(scene, ALLOWED.into())?)?;
        }
        let mut book = scene.book.open();
        book.tally.packets += sources.len() as u64;
        book.tally.allowed.0 += u64::from(allowed);
        drop(book);
        thread::sleep(BREATH);
    }
    Ok(())
}

/// One packet of each, and who of them came through.
pub(super) fn probe(scene: &Scene<'_>, sources: &[IpAddr]) -> Result<()> {
    let mut wire = Wire::open(&scene.stage.outside)?;
    sources.iter().try_for_each(|source| wire.send(&frame(scene, *source)?))
}

/// Receives until told that everything was sent.
pub(super) fn receive(scene: &Scene<'_>, wire: &mut Wire) -> Result<()> {
    loop {
        let over = scene.silent.load(Ordering::Acquire);
        let Some(bytes) = wire.receive()? else {
            if over {
                return Ok(());
            }
            continue;
        };
        let Some((source, sent)) = read(scene, &bytes) else { continue };
        let mut book = scene.book.open();
        if source == IpAddr::from(ALLOWED) {
            book.tally.allowed.1 += 1;
        }
        book.received(source, sent);
        drop(book);
        scene.through.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(source);
    }
}

/// A frame of his that says when it was sent, in nanoseconds since the scene began.
fn frame(scene: &Scene<'_>, source: IpAddr) -> Result<Vec<u8>> {
    let sent = u64::try_from(scene.began.elapsed().as_nanos()).context("too long")?;
    let text = sent.to_be_bytes();
    let packet = match source {
        IpAddr::V4(source) => Packet::v4(source, EDGE.0.parse::<Ipv4Addr>()?, &text)?,
        IpAddr::V6(source) => Packet::v6(source, EDGE.1.parse::<Ipv6Addr>()?, &text)?,
    };
    Ok(ethernet(&[], &packet))
}

/// Whose frame it is and when it was sent; `None` if it is none of ours.
fn read(scene: &Scene<'_>, bytes: &[u8]) -> Option<(IpAddr, Instant)> {
    let place = bytes.windows(MARK.len()).position(|part| part == MARK)?;
    let sent = bytes.get(place + MARK.len()..)?.first_chunk()?;
    let sent = scene.began + Duration::from_nanos(u64::from_be_bytes(*sent));
    let source = match bytes.get(12..14)? {
        [0x08, 0x00] => IpAddr::from(*bytes.get(26..)?.first_chunk::<4>()?),
        [0x86, 0xdd] => IpAddr::from(*bytes.get(22..)?.first_chunk::<16>()?),
        _ => return None,
    };
    Some((source, sent))
}
