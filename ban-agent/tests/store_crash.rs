//! Law 4 under kill -9: what the store acknowledged is there, what it released stays released.

use std::{
    collections::{BTreeMap, HashSet},
    env,
    error::Error,
    io::{BufRead, BufReader, Write},
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
};

use ban_agent::{
    clock::{Boot, Now},
    ledger::{Claim, Holder},
    net::{IpNet, host},
    source::{Checkpoint, Position},
    store::Store,
};

const STATE: &str = "BAN_AGENT_TEST_STATE";
const ROUNDS: usize = 25;

fn claim(number: u32) -> Claim {
    Claim {
        prefix: host(Ipv4Addr::from(0x0a00_0000 + number).into()),
        holder: Holder::Jail("sshd".into()),
        until: Boot::NEVER,
        ports: Vec::new(),
        derived: false,
    }
}

/// Bans and unbans until it is killed, and prints what was acknowledged.
fn victim(path: &Path, first: u32) -> Result<(), Box<dyn Error>> {
    let mut store = Store::open(path)?;
    let now = Now::read();
    let mut out = std::io::stdout().lock();
    for number in first.. {
        let position = Position::File {
            files: vec![Checkpoint {
                dev: 0,
                ino: 0,
                offset: u64::from(number),
                head: 0,
                head_len: 0,
                last: 0,
                last_len: 0,
                copy: false,
                rotated: false,
            }],
        };
        store.claim(&claim(number), None, now);
        store.positions().handled(Some(("log".into(), Some(position))), Vec::new());
        if number % 3 == 0 {
            store.barrier().blocking_recv()?;
            writeln!(out, "+{number}")?;
        }
        if number % 5 == 0 {
            store.release(&claim(number));
            store.barrier().blocking_recv()?;
            writeln!(out, "-{number}")?;
        }
    }
    Ok(())
}

#[test]
fn nothing_acknowledged_is_lost() {
    if let Ok(state) = env::var(STATE) {
        let (path, first) = state.rsplit_once(' ').unwrap();
        return victim(path.as_ref(), first.parse().unwrap()).unwrap();
    }
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("state.sqlite");
    // Whether each number is claimed.
    let mut acknowledged: BTreeMap<u32, bool> = BTreeMap::new();
    let mut next = 1;
    for round in 0..ROUNDS {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "nothing_acknowledged_is_lost", "--nocapture"])
            .env(STATE, format!("{} {next}", path.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let is_step = |line: &String| line.starts_with(['+', '-']);
        let mut highest = next;
        for (at, line) in lines.map_while(Result::ok).filter(is_step).enumerate() {
            let (sign, number) = line.split_at(1);
            let number: u32 = number.parse().unwrap();
            acknowledged.insert(number, sign == "+");
            highest = highest.max(number);
            // Killed in the middle of something; the pipe is read to its end.
            if at == round * 3 + 1 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let mut store = Store::open(&path).unwrap();
        let mut held: HashSet<IpNet> = HashSet::new();
        store.load(Now::read(), |claim| {
            held.insert(claim.prefix);
        });
        let position = store.positions().known().remove("log");
        store.close();
        for (number, is_claimed) in &mut acknowledged {
            // After the last acknowledgement the child may have got one step further.
            let in_doubt = *number == highest && number % 5 == 0 && *is_claimed;
            let is_held = held.contains(&claim(*number).prefix);
            assert!(is_held == *is_claimed || in_doubt, "round {round}: {number} {is_claimed}");
            // From now on it is known.
            *is_claimed = is_held;
        }
        // A position is never ahead of the claims that were recorded before it.
        if let Some(Position::File { files }) = position {
            let reached = u32::try_from(files[0].offset).unwrap();
            let last = claim(reached).prefix;
            assert!(held.contains(&last) || reached % 5 == 0, "round {round}: {reached}");
        }
        next = highest + 1000;
    }
    assert!(acknowledged.len() > ROUNDS);
}
