//! Who stands outside the edge: an attacker and a normal client, each over IPv4 and IPv6. They
//! only send to the edge of the lab.

use std::{
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::{api::PASSWORD, scene, tell::Teller};
use crate::net_shared::{Namespace, eventually};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// What a request brought.
pub(super) enum Reply {
    Status(u16),
    /// No connection within two seconds.
    Nothing,
}

/// Someone with an address of his own.
#[derive(Clone, Copy)]
pub(super) struct Guest {
    family: Family,
    address: &'static str,
}

impl Guest {
    pub(super) fn attacker(family: Family) -> Self {
        let address = match family {
            Family::V4 => scene::ATTACKER.0,
            Family::V6 => scene::ATTACKER.1,
        };
        Self { family, address }
    }

    fn client(family: Family) -> Self {
        let address = match family {
            Family::V4 => scene::CLIENT.0,
            Family::V6 => scene::CLIENT.1,
        };
        Self { family, address }
    }

    pub(super) fn address(self) -> &'static str {
        self.address
    }

    pub(super) fn method(self) -> &'static str {
        match self.family {
            Family::V4 => "as a login (the API says 531)",
            Family::V6 => "as a signature of an API key (401)",
        }
    }

    fn edge(self) -> &'static str {
        match self.family {
            Family::V4 => scene::EDGE.0,
            Family::V6 => scene::EDGE.1,
        }
    }

    /// Whether one ping comes back within a second.
    pub(super) fn pings(self, outside: &Namespace) -> Result<bool> {
        let mut ping = outside.command("ping");
        ping.args(["-c", "1", "-W", "1", "-I", self.address, self.edge()]);
        let done = ping.stdout(Stdio::null()).stderr(Stdio::null()).status();
        Ok(done.context("cannot start ping")?.success())
    }

    /// One wrong guess.
    pub(super) fn guesses(self, outside: &Namespace, attempt: usize) -> Result<Reply> {
        let query = match self.family {
            Family::V4 => format!("command=login&username=admin&password=guess{attempt}"),
            Family::V6 => format!("command=listUsers&apiKey=stolen&signature=guess{attempt}"),
        };
        self.asks(outside, &query)
    }

    fn works(self, outside: &Namespace) -> Result<Reply> {
        self.asks(outside, &format!("command=login&username=client&password={PASSWORD}"))
    }

    fn asks(self, outside: &Namespace, query: &str) -> Result<Reply> {
        let host = match self.family {
            Family::V4 => self.edge().to_owned(),
            Family::V6 => format!("[{}]", self.edge()),
        };
        let mut curl = outside.command("curl");
        curl.args(["--silent", "--noproxy", "*", "--globoff", "--output", "/dev/null"])
            .args(["--write-out", "%{http_code}", "--connect-timeout", "2", "--max-time", "4"])
            .args(["--interface", self.address])
            .arg(format!("http://{host}/client/api?{query}"));
        let text = written(&mut curl)?;
        let status: u16 = text.trim().parse().with_context(|| format!("curl wrote {text:?}"))?;
        Ok(if status == 0 { Reply::Nothing } else { Reply::Status(status) })
    }
}

/// What curl writes, also when it fails to connect.
fn written(curl: &mut Command) -> Result<String> {
    let done = curl.stderr(Stdio::null()).output().context("cannot start curl")?;
    String::from_utf8(done.stdout).context("curl wrote no text")
}

/// The normal client: asks twice a second in the background, over both families.
pub(super) struct Client {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Shared {
    served: AtomicUsize,
    stop: AtomicBool,
}

impl Client {
    pub(super) fn start(outside: Arc<Namespace>) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mine = Arc::clone(&shared);
        let work = move || {
            let guests = [Guest::client(Family::V4), Guest::client(Family::V6)];
            for guest in guests.iter().cycle() {
                if mine.stop.load(Ordering::Relaxed) {
                    break;
                }
                match guest.works(&outside)? {
                    Reply::Status(200) => mine.served.fetch_add(1, Ordering::Relaxed),
                    Reply::Status(status) => return Err(anyhow!("the client was told {status}")),
                    Reply::Nothing => return Err(anyhow!("the client was not answered")),
                };
                thread::sleep(Duration::from_millis(500));
            }
            Ok(())
        };
        let thread = thread::Builder::new().name("client".into()).spawn(work)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Waits for two more answers.
    pub(super) fn still_served(&self, tell: &Teller) -> Result<()> {
        let before = self.shared.served.load(Ordering::Relaxed);
        eventually("the client is served", Duration::from_secs(10), || {
            super::stop::check()?;
            Ok(self.shared.served.load(Ordering::Relaxed) >= before + 2)
        })?;
        let served = self.shared.served.load(Ordering::Relaxed);
        tell.say("client", &format!("{served} requests so far, every one answered 200"));
        Ok(())
    }

    /// Stops; how many requests were served. An error if one was not.
    pub(super) fn finish(mut self) -> Result<usize> {
        self.join().context("the normal client was disturbed")?;
        let served = self.shared.served.load(Ordering::Relaxed);
        ensure!(served > 0, "the normal client was never served");
        Ok(served)
    }

    fn join(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_panic| anyhow!("the client's thread panicked"))?
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Whoever drops it early already has an error to report.
        let _ended = self.join();
    }
}
