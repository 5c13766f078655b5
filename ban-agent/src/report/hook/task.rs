//! A hook at work: gathers, waits for its turn, delivers, counts.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinHandle, time::Instant};

use super::{
    Format, Spec, Target,
    deliver::{post, run},
    gather::Gathered,
    message::body,
};
use crate::report::{
    Deliveries,
    event::{Bus, Observer, Subscription},
};

/// How long the first event waits for others to join it.
const GATHER: Duration = Duration::from_millis(500);

/// A running hook.
#[derive(Debug)]
pub struct Running {
    name: Arc<str>,
    stats: Arc<Deliveries>,
    task: JoinHandle<()>,
}

/// Starts a hook; it works until the bus is closed.
#[must_use]
pub fn start(spec: Spec, bus: &Bus) -> Running {
    let (name, stats) = (Arc::clone(&spec.name), Arc::new(Deliveries::default()));
    let events = bus.subscribe("hook");
    let hook =
        Hook { spec: Arc::new(spec), stats: Arc::clone(&stats), observer: bus.observer().clone() };
    Running { name, stats, task: tokio::spawn(hook.work(events)) }
}

impl Running {
    /// Returns its name and what it counted.
    #[must_use]
    pub fn stats(&self) -> (Arc<str>, Arc<Deliveries>) {
        (Arc::clone(&self.name), Arc::clone(&self.stats))
    }

    /// Waits for the last message, but not for long; a command that still runs ends with the agent.
    /// To be called when the bus is closed.
    pub async fn finish(mut self, patience: Duration) {
        if tokio::time::timeout(patience, &mut self.task).await.is_err() {
            log::warn!("hook {}: the last message was not delivered in time", self.name);
        }
    }
}

struct Hook {
    spec: Arc<Spec>,
    stats: Arc<Deliveries>,
    observer: Observer,
}

impl Hook {
    async fn work(self, mut events: Subscription) {
        let mut gathered = Gathered::default();
        let (mut due, mut earliest) = (Instant::now(), Instant::now());
        loop {
            let idle = gathered.is_empty();
            tokio::select! {
                next = events.next() => {
                    let Some((missing, part)) = next else { break };
                    gathered.more += if idle { 0 } else { missing };
                    for (number, event) in (part.first..).zip(part.events.iter()) {
                        if self.spec.wants(&event.what) {
                            gathered.add(number, event);
                        }
                    }
                    if idle {
                        due = earliest.max(Instant::now() + GATHER);
                    }
                }
                () = tokio::time::sleep_until(due), if !idle => {
                    self.tell(std::mem::take(&mut gathered), &events).await;
                    earliest = Instant::now() + self.spec.every;
                }
            }
        }
        if !gathered.is_empty() {
            self.tell(gathered, &events).await;
        }
    }

    async fn tell(&self, gathered: Gathered, events: &Subscription) {
        let result = self.deliver(&gathered).await;
        if result.is_err() {
            events.lose(gathered.count());
        }
        // once, and again when it is over
        if self.stats.count(result) {
            match self.stats.error() {
                Some(error) => log::warn!("hook {}: {error}", self.spec.name),
                None => log::info!("hook {} delivers again", self.spec.name),
            }
        }
    }

    async fn deliver(&self, gathered: &Gathered) -> Result<(), String> {
        let Spec { target, timeout, .. } = &*self.spec;
        match target {
            Target::Url { url, format } => {
                let body = body(gathered, *format, &self.observer).to_string();
                post(url.clone(), body, *timeout).await
            }
            Target::Command(words) => {
                let body = format!("{}\n", body(gathered, Format::Json, &self.observer));
                run(words, body, *timeout).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Event, What},
        hook::Tell,
    };

    fn spec(words: &[&str], every: Duration) -> Spec {
        Spec {
            name: "test".into(),
            target: Target::Command(words.iter().map(|word| (*word).to_owned()).collect()),
            tell: Tell::ALL.to_vec(),
            jails: vec!["a".into(), "b".into()],
            every,
            timeout: Duration::from_secs(20),
        }
    }

    fn resumed(jail: &str) -> Event {
        Event::now(What::Resumed { jail: jail.into() })
    }

    #[tokio::test]
    async fn what_happens_meanwhile_is_the_next_message() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("said");
        // no shell in between: `$(id)` and `;` are letters
        let script = folder.path().join("hook $(id);.sh");
        std::fs::write(&script, format!("#!/bin/sh\ncat >> {}\n", path.display())).unwrap();
        let bus = Bus::default();
        let words = ["/bin/sh", script.to_str().unwrap()];
        let hook = start(spec(&words, Duration::from_secs(3600)), &bus);
        let (_, stats) = hook.stats();
        bus.publish(vec![resumed("a"), resumed("other"), resumed("b")]);
        while stats.done() == 0 {
            assert_eq!(stats.error(), None);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bus.publish(vec![resumed("a")]);
        bus.publish(vec![resumed("b")]);
        // the next message is an hour away, unless the agent ends
        bus.close();
        hook.finish(Duration::from_secs(20)).await;
        assert_eq!((stats.done(), stats.failed()), (2, 0));
        let said = std::fs::read_to_string(&path).unwrap();
        let numbers: Vec<Vec<u64>> = said
            .lines()
            .map(|line| {
                let message: serde_json::Value = serde_json::from_str(line).unwrap();
                let events = message["events"].as_array().unwrap().iter();
                events.map(|event| event["event"]["sequence"].as_u64().unwrap()).collect()
            })
            .collect();
        assert_eq!(numbers, [[0, 2], [3, 4]]);
    }

    #[tokio::test]
    async fn a_command_that_fails_or_hangs_is_counted_and_ended() {
        for (words, said) in [
            (&["/bin/false"][..], "ended with exit status: 1"),
            (&["/nonexistent/hook"], "cannot start /nonexistent/hook"),
            (&["/bin/sleep", "3600"], "took longer than"),
        ] {
            let bus = Bus::default();
            let mut spec = spec(words, Duration::ZERO);
            spec.timeout = Duration::from_millis(200);
            let hook = start(spec, &bus);
            let (_, stats) = hook.stats();
            bus.publish(vec![resumed("a")]);
            bus.close();
            hook.finish(Duration::from_secs(20)).await;
            assert_eq!((stats.done(), stats.failed()), (0, 1), "{words:?}");
            assert!(stats.error().unwrap().contains(said), "{:?}", stats.error());
            assert_eq!(bus.lost(), [("hook", 1)]);
        }
    }
}
