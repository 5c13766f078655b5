//! The thread that keeps what a ban must not hit current. It sleeps until the kernel tells of a
//! changed address or route, or until the sessions are to be looked at again.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::{read, write},
};

use super::{
    Error, HostNetwork, Network, Servers, Sessions,
    clocks::{self, InUse},
    route,
    sessions::{self, Clients},
};

/// The tables and /proc are read at most this often, however much happens.
const PAUSE: Duration = Duration::from_secs(1);
/// And at least this often: nothing tells of a file that names another server.
const REFRESH: Duration = Duration::from_secs(60);

const PROC: &str = "/proc";
const ROOT: &str = "/";

/// Who is connected, and when that was seen.
type Connected = Arc<Mutex<(Instant, Arc<HashSet<IpAddr>>)>>;

/// Keeps what a ban must not hit current until it is dropped.
pub struct Watcher {
    wake: Arc<OwnedFd>,
    stop: Arc<AtomicBool>,
    connected: Connected,
    wanted: Arc<Mutex<Servers>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").finish_non_exhaustive()
    }
}

impl Watcher {
    /// Reads the network around this host, and goes on watching them: `changed` hears of every change.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn start(
        mut sessions: Sessions,
        wanted: Servers,
        changed: impl Fn(HostNetwork) + Send + 'static,
    ) -> Result<(Watcher, HostNetwork), Error> {
        // Before the first look: what changes in between is not missed.
        let notifications = route::Notifications::subscribe()?;
        let network = route::network()?;
        let Clients { connected, sessions: peers } =
            sessions::clients(PROC.as_ref(), sessions.look());
        let clocks = InUse::default();
        let first = HostNetwork::of(&network, &peers, wanted.look(ROOT.as_ref(), &BTreeSet::new()));
        let wanted = Arc::new(Mutex::new(wanted));
        let connected = Arc::new(Mutex::new((Instant::now(), Arc::new(connected))));
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = eventfd(0, flags).map_err(|error| Error::Thread(error.into()))?;
        let (wake, stop) = (Arc::new(wake), Arc::new(AtomicBool::new(false)));
        let waking = Arc::clone(&wake);
        clocks::start(ROOT, Arc::clone(&wanted), &clocks, move || look_again(&waking))
            .map_err(Error::Thread)?;
        let watch = Watch {
            notifications,
            wake: Arc::clone(&wake),
            stop: Arc::clone(&stop),
            connected: Arc::clone(&connected),
            sessions,
            wanted: Arc::clone(&wanted),
            clocks,
            network,
            last: first.clone(),
        };
        let thread = thread::Builder::new()
            .name("protect".to_owned())
            .spawn(move || watch.run(&changed))
            .map_err(Error::Thread)?;
        Ok((Watcher { wake, stop, connected, wanted, thread: Some(thread) }, first))
    }

    /// Returns who has a TCP connection to this host, or had one a second ago. Asks the kernel if
    /// nobody has since: some ms for each 10,000 connections.
    #[must_use]
    pub fn connected(&self) -> Arc<HashSet<IpAddr>> {
        let mut last = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0.elapsed() >= PAUSE {
            *last = (
                Instant::now(),
                Arc::new(sessions::clients(PROC.as_ref(), &HashSet::new()).connected),
            );
        }
        Arc::clone(&last.1)
    }

    /// Asks for a look at the SSH sessions, soon. Nothing tells of a login: call it when somebody
    /// is about to be banned.
    pub fn look(&self) {
        look_again(&self.wake);
    }

    /// From now on these are protected, too.
    pub fn want(&self, servers: Servers) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if *wanted != servers {
            *wanted = servers;
            drop(wanted);
            self.look();
        }
    }
}

fn look_again(wake: &OwnedFd) {
    // Fails only if it is about to be read anyway.
    let _ = write(wake, &1u64.to_ne_bytes());
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.look();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread that watches addresses and routes has panicked");
        }
    }
}

struct Watch {
    notifications: route::Notifications,
    wake: Arc<OwnedFd>,
    stop: Arc<AtomicBool>,
    connected: Connected,
    sessions: Sessions,
    wanted: Arc<Mutex<Servers>>,
    clocks: InUse,
    network: Network,
    last: HostNetwork,
}

impl Watch {
    fn run(mut self, changed: &impl Fn(HostNetwork)) {
        let (mut moved, mut asked) = (false, false);
        let mut looked = None;
        loop {
            let idle = !(moved || asked);
            let wait = if idle {
                REFRESH
            } else {
                let since = looked.map_or(PAUSE, |looked: Instant| looked.elapsed());
                PAUSE.saturating_sub(since)
            };
            let (notified, woken) = self.wait(wait);
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            moved |= notified;
            asked |= woken || (idle && !notified);
            if (moved || asked) && looked.is_none_or(|looked| looked.elapsed() >= PAUSE) {
                self.look(moved, changed);
                looked = Some(Instant::now());
                (moved, asked) = (false, false);
            }
        }
    }

    /// Returns whether the kernel has news, and whether a look was asked for.
    fn wait(&self, patience: Duration) -> (bool, bool) {
        let mut events = [
            PollFd::from_borrowed_fd(self.notifications.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN),
        ];
        let timeout = Timespec::try_from(patience).ok();
        if let Err(error) = poll(&mut events, timeout.as_ref())
            && error != rustix::io::Errno::INTR
        {
            log::error!("cannot wait for changed addresses: {error}");
            thread::sleep(PAUSE);
        }
        let [notified, woken] = events.map(|event| !event.revents().is_empty());
        if notified {
            self.notifications.drain();
        }
        if woken {
            let _ = read(&self.wake, &mut [0; 8]);
        }
        (notified, woken)
    }

    fn look(&mut self, moved: bool, changed: &impl Fn(HostNetwork)) {
        if moved {
            match route::network() {
                Ok(network) => self.network = network,
                // What was known stays protected.
                Err(error) => log::error!("cannot see what to protect: {error}"),
            }
        }
        let Clients { connected, sessions } =
            sessions::clients(PROC.as_ref(), self.sessions.look());
        let mut last = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        *last = (Instant::now(), Arc::new(connected));
        drop(last);
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let servers = wanted.look(ROOT.as_ref(), &clocks);
        let now = HostNetwork::of(&self.network, &sessions, servers);
        if now != self.last {
            self.last = now.clone();
            changed(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, process::Command, sync::mpsc};

    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

    use super::*;
    use crate::{ledger::Protected, net::parse_prefix};

    /// A network namespace, gone with the value.
    struct Namespace(String);

    impl Namespace {
        fn new(test: &str) -> Option<Namespace> {
            let name = format!("ledger-{test}-{}", std::process::id());
            if ip(&["netns", "add", &name]) {
                return Some(Namespace(name));
            }
            println!("SKIPPED {test}: making a network namespace needs root and iproute2");
            None
        }

        fn ip(&self, arguments: &str) {
            let words = ["-n", &self.0].into_iter().chain(arguments.split(' '));
            assert!(ip(&words.collect::<Vec<_>>()), "ip {arguments}");
        }

        /// Runs `work` on a thread inside.
        fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
            let file = File::open(format!("/run/netns/{}", self.0)).unwrap();
            let inside = || {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(file.as_fd(), kind).unwrap();
                work()
            };
            thread::scope(|scope| scope.spawn(inside).join().unwrap())
        }
    }

    impl Drop for Namespace {
        fn drop(&mut self) {
            ip(&["netns", "del", &self.0]);
        }
    }

    fn ip(arguments: &[&str]) -> bool {
        Command::new("ip").args(arguments).status().is_ok_and(|status| status.success())
    }

    #[test]
    fn what_is_added_is_protected_and_what_is_removed_is_not() {
        let Some(namespace) = Namespace::new("watch") else { return };
        namespace.ip("link add veth0 type veth peer name veth1");
        namespace.ip("link set veth1 up");
        namespace.ip("link set veth0 up");
        let (sender, changes) = mpsc::channel();
        let changed = move |host| sender.send(host).unwrap();
        let (watcher, first) = namespace
            .enter(|| Watcher::start(Sessions::default(), Servers::default(), changed).unwrap());
        let why = |host: &HostNetwork, text: &str| {
            let prefix = parse_prefix(text).unwrap();
            host.protected.iter().find(|(net, _)| *net == prefix).map(|(_, why)| *why)
        };
        assert_eq!(why(&first, "192.0.2.7"), None);
        // Notifications come one by one; in the end all are known.
        let until = |wanted: &dyn Fn(&HostNetwork) -> bool| {
            loop {
                let now = changes.recv_timeout(crate::patience::patience()).unwrap();
                if wanted(&now) {
                    return now;
                }
            }
        };
        namespace.ip("address add 192.0.2.7/24 dev veth0");
        namespace.ip("route add default via 192.0.2.1");
        let now = until(&|now| why(now, "192.0.2.1") == Some(Protected::Gateway));
        assert_eq!(why(&now, "192.0.2.7"), Some(Protected::Own));
        assert!(now.onlink.contains(&parse_prefix("192.0.2.0/24").unwrap()));
        namespace.ip("address add 2001:db8::7/64 dev veth0 nodad");
        until(&|now| why(now, "2001:db8::7") == Some(Protected::Own));
        namespace.ip("address del 192.0.2.7/24 dev veth0");
        let now = until(&|now| why(now, "192.0.2.7").is_none());
        assert_eq!(why(&now, "2001:db8::7"), Some(Protected::Own));
        drop(watcher);
        assert!(changes.recv().is_err(), "the thread is gone");
    }
}
