//! Tells of dropped packets while a client listens; otherwise the program reports none, and nothing
//! wakes up.

use std::{collections::HashMap, time::Duration};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
};

use crate::{
    dataplane::{self, Events},
    engine::command::Command,
    event::{Bus, Dropped, Event, What},
};

/// How often the ring is looked into while packets are dropped: a flood must not wake us for each.
const PACE: Duration = Duration::from_millis(50);
/// Drops told at once; more wait for the next time, or find the ring full and are counted.
const AT_ONCE: usize = 1024;

/// Works until the core is gone.
pub(super) async fn relay(events: Events, bus: Bus, core: mpsc::Sender<Command>) {
    #[expect(deprecated, reason = "it owns its descriptor, and the successor is unsafe")]
    let events = AsyncFd::with_interest(events, Interest::READABLE);
    let Ok(mut events) = events.inspect_err(|error| log::warn!("no sampled drops: {error}")) else {
        return;
    };
    let mut wanted = bus.wants_drops();
    while wanted.wait_for(|count| *count > 0).await.is_ok() {
        // what an earlier listener left
        events.get_mut().by_ref().for_each(drop);
        if core.send(Command::Sample(true)).await.is_err() {
            return;
        }
        tokio::select! {
            () = pass_on(&mut events, &bus) => return,
            gone = wanted.wait_for(|count| *count == 0) => if gone.is_err() { return },
        }
        if core.send(Command::Sample(false)).await.is_err() {
            return;
        }
    }
}

async fn pass_on(events: &mut AsyncFd<Events>, bus: &Bus) {
    let mut names = Names::default();
    while let Ok(mut ready) = events.readable_mut().await {
        let some: Vec<dataplane::Dropped> = ready.get_inner_mut().by_ref().take(AT_ONCE).collect();
        if some.len() < AT_ONCE {
            ready.clear_ready();
        }
        bus.publish(some.into_iter().map(|dropped| told(dropped, &mut names)).collect());
        tokio::time::sleep(PACE).await;
    }
}

fn told(dropped: dataplane::Dropped, names: &mut Names) -> Event {
    Event::now(What::Dropped(Dropped {
        address: dropped.address,
        interface: names.of(dropped.ifindex),
        length: dropped.length,
        target: dropped.target,
        dry_run: dropped.dry_run,
    }))
}

/// Names of interfaces by index, asked for once each.
#[derive(Default)]
struct Names(HashMap<u32, String>);

impl Names {
    fn of(&mut self, index: u32) -> String {
        if let Some(name) = self.0.get(&index) {
            return name.clone();
        }
        // an index is not used twice; a name may change, which nobody protects against
        let all = dataplane::interface::list().unwrap_or_default();
        self.0.extend(all.into_iter().map(|interface| (interface.index, interface.name)));
        self.0.entry(index).or_insert_with(|| index.to_string()).clone()
    }
}
