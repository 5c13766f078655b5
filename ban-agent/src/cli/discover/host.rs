//! What runs on this host: processes and what they listen on, containers, names in the journal. Reads
//! `/proc` and the files of container engines.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Deserialize;

/// A snapshot of the host.
#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) processes: Vec<Process>,
    pub(super) containers: Vec<Container>,
    /// `SYSLOG_IDENTIFIER`s that have entries in the journal.
    pub(super) identifiers: HashSet<String>,
}

/// Processes of one name in one unit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) name: String,
    /// The systemd service that it belongs to.
    pub(super) unit: Option<String>,
    /// Where others can reach it: `tcp/22`.
    pub(super) listens: BTreeSet<String>,
}

/// A container, and where its engine keeps what it prints.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) log: PathBuf,
}

impl Host {
    /// Looks at the host whose root folder is `root`.
    pub(super) fn survey(root: &Path) -> Host {
        let mut containers = docker(&root.join("var/lib/docker/containers"));
        containers.extend(kubernetes(&root.join("var/log/containers")));
        Host { processes: processes(&root.join("proc")), containers, identifiers: identifiers() }
    }
}

fn processes(proc: &Path) -> Vec<Process> {
    let sockets = sockets(proc);
    let mut found: HashMap<(String, Option<String>), BTreeSet<String>> = HashMap::new();
    for entry in fs::read_dir(proc).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let path = entry.path();
        let Ok(name) = fs::read_to_string(path.join("comm")) else { continue };
        // threads of the kernel have no command line
        if fs::read(path.join("cmdline")).unwrap_or_default().is_empty() {
            continue;
        }
        let cgroup = fs::read_to_string(path.join("cgroup")).unwrap_or_default();
        let listens = found.entry((name.trim().to_owned(), unit(&cgroup))).or_default();
        // of processes of others, without root, nothing can be told
        for fd in fs::read_dir(path.join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(fd.path()) else { continue };
            let target = target.to_string_lossy();
            let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            listens.extend(inode.and_then(|inode| sockets.get(inode)).cloned());
        }
    }
    let mut found: Vec<Process> =
        found.into_iter().map(|((name, unit), listens)| Process { name, unit, listens }).collect();
    found.sort_by(|a, b| (&a.name, &a.unit).cmp(&(&b.name, &b.unit)));
    found
}

/// Returns the service in the path of a control group: `0::/system.slice/ssh.service`.
fn unit(cgroup: &str) -> Option<String> {
    let mut parts = cgroup.lines().flat_map(|line| line.split('/'));
    parts.rfind(|part| part.ends_with(".service")).map(str::to_owned)
}

/// Returns what listens for others, by inode.
fn sockets(proc: &Path) -> HashMap<String, String> {
    let range = fs::read_to_string(proc.join("sys/net/ipv4/ip_local_port_range"));
    let first = range.ok().and_then(|text| text.split_whitespace().next()?.parse().ok());
    // a client's socket has such a port as well
    let ephemeral: u16 = first.unwrap_or(32_768);
    let mut found = HashMap::new();
    // states of include/net/tcp_states.h: LISTEN, and CLOSE for a datagram socket without a peer
    for (table, protocol, state) in
        [("tcp", "tcp", "0A"), ("tcp6", "tcp", "0A"), ("udp", "udp", "07"), ("udp6", "udp", "07")]
    {
        let text = fs::read_to_string(proc.join("net").join(table)).unwrap_or_default();
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (Some(local), Some(found_state), Some(inode)) =
                (words.get(1), words.get(3), words.get(9))
            else {
                continue;
            };
            let Some((address, port)) = endpoint(local) else { continue };
            let reached = !address.is_loopback() && (protocol == "tcp" || port < ephemeral);
            if *found_state == state && reached {
                found.insert((*inode).to_owned(), format!("{protocol}/{port}"));
            }
        }
    }
    found
}

/// `0100007F:0016`: each word of the address in the host's byte order, the port as a number.
fn endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let word = address.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    };
    let address = if address.len() == 8 {
        IpAddr::V4(Ipv4Addr::from(word(0)?))
    } else {
        let words = [word(0)?, word(1)?, word(2)?, word(3)?];
        let bytes: [u8; 16] = words.concat().try_into().ok()?;
        IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
    };
    Some((address, port))
}

/// What Docker writes of a container (`config.v2.json`).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Docker {
    name: String,
    config: DockerConfig,
    log_path: PathBuf,
    state: DockerState,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerConfig {
    image: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerState {
    running: bool,
}

/// Returns the containers of Docker that run and whose output is kept in files.
fn docker(folder: &Path) -> Vec<Container> {
    let mut found: Vec<Container> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let text = fs::read(entry.path().join("config.v2.json")).ok()?;
            let docker: Docker = serde_json::from_slice(&text).ok()?;
            let kept = docker.state.running && docker.log_path.is_absolute();
            kept.then(|| Container {
                name: docker.name.trim_start_matches('/').to_owned(),
                image: docker.config.image,
                log: docker.log_path,
            })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Returns the containers of a Kubernetes node: `POD_NAMESPACE_CONTAINER-ID.log`.
fn kubernetes(folder: &Path) -> Vec<Container> {
    let mut found: Vec<Container> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (_, rest) = name.strip_suffix(".log")?.split_once('_')?;
            let (_, container) = rest.split_once('_')?;
            let (container, _) = container.rsplit_once('-')?;
            let container = container.to_owned();
            Some(Container { image: container.clone(), name: container, log: entry.path() })
        })
        .collect();
    found.sort_by(|a, b| (&a.name, &a.log).cmp(&(&b.name, &b.log)));
    found
}

/// Returns what programs call themselves in the journal.
fn identifiers() -> HashSet<String> {
    let mut journal = Command::new("journalctl");
    journal.args(["--quiet", "--no-pager", "--field=SYSLOG_IDENTIFIER"]).stdin(Stdio::null());
    let said = journal.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&said).lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_as_the_kernel_writes_them() {
        let v4 = u32::from_ne_bytes([203, 0, 113, 7]);
        let read = endpoint(&format!("{v4:08X}:0016")).unwrap();
        assert_eq!(read, ("203.0.113.7".parse().unwrap(), 22));
        let words = [[0x20, 1, 0x0d, 0xb8], [0; 4], [0; 4], [0, 0, 0, 1]].map(u32::from_ne_bytes);
        let text: String = words.iter().map(|word| format!("{word:08X}")).collect();
        assert_eq!(
            endpoint(&format!("{text}:01BB")).unwrap(),
            ("2001:db8::1".parse().unwrap(), 443)
        );
        for bad in ["", "0100007F", "0100007:0016", "0100007F:x", "é:1", "00000000000000000:1"] {
            assert_eq!(endpoint(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_process_is_named_by_its_unit_and_by_where_it_listens() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join("proc").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let all = u32::from_ne_bytes([0; 4]);
        let own = u32::from_ne_bytes([127, 0, 0, 1]);
        let line = |at: u32, port: u16, state: &str, inode: u32| {
            format!(" 0: {at:08X}:{port:04X} 00000000:0000 {state} 0:0 0:0 0 0 0 {inode} 1\n")
        };
        let tcp = line(all, 22, "0A", 1) + &line(own, 25, "0A", 2) + &line(all, 22, "01", 3);
        write("net/tcp", &format!("  sl  local_address\n{tcp}"));
        write(
            "net/udp",
            &format!("  sl\n{}{}", line(all, 53, "07", 4), line(all, 40_000, "07", 5)),
        );
        for (pid, name, unit, inodes) in [
            (7, "sshd", "0::/system.slice/ssh.service\n", vec![1, 3]),
            (8, "sshd", "0::/system.slice/ssh.service\n", vec![3]),
            (9, "named", "0::/system.slice/named.service\n", vec![4, 5]),
            (10, "master", "0::/user.slice\n", vec![2]),
        ] {
            write(&format!("{pid}/comm"), &format!("{name}\n"));
            write(&format!("{pid}/cmdline"), name);
            write(&format!("{pid}/cgroup"), unit);
            let fds = root.path().join(format!("proc/{pid}/fd"));
            fs::create_dir_all(&fds).unwrap();
            for inode in inodes {
                let target = format!("socket:[{inode}]");
                std::os::unix::fs::symlink(target, fds.join(inode.to_string())).unwrap();
            }
        }
        write("11/comm", "kworker/0:1\n");
        write("11/cmdline", "");
        let process = |name: &str, unit: Option<&str>, listens: &[&str]| Process {
            name: name.into(),
            unit: unit.map(str::to_owned),
            listens: listens.iter().map(|word| (*word).to_owned()).collect(),
        };
        let expected = [
            process("master", None, &[]),
            process("named", Some("named.service"), &["udp/53"]),
            process("sshd", Some("ssh.service"), &["tcp/22"]),
        ];
        assert_eq!(Host::survey(root.path()).processes, expected);
    }

    #[test]
    fn containers_of_both_engines() {
        let root = tempfile::tempdir().unwrap();
        let docker = root.path().join("var/lib/docker/containers");
        for (id, running) in [("aa", true), ("bb", false)] {
            let folder = docker.join(id);
            fs::create_dir_all(&folder).unwrap();
            let log = format!("/var/lib/docker/containers/{id}/{id}-json.log");
            let text = format!(
                r#"{{"Name":"/vault_{id}","Config":{{"Image":"vaultwarden/server:1.30"}},"LogPath":"{log}","State":{{"Running":{running}}}}}"#
            );
            fs::write(folder.join("config.v2.json"), text).unwrap();
        }
        fs::create_dir_all(docker.join("cc")).unwrap();
        fs::write(docker.join("cc/config.v2.json"), "{").unwrap();
        let pods = root.path().join("var/log/containers");
        fs::create_dir_all(&pods).unwrap();
        fs::write(pods.join("web-0_default_grafana-0123abcd.log"), "").unwrap();
        fs::write(pods.join("odd.log"), "").unwrap();
        let found = Host::survey(root.path()).containers;
        let names: Vec<_> = found.iter().map(|one| (&*one.name, &*one.image)).collect();
        assert_eq!(names, [("vault_aa", "vaultwarden/server:1.30"), ("grafana", "grafana")]);
    }
}
