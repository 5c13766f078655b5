//! Which interfaces to protect: those that the operator names, or all by which the outside reaches
//! this host. Decides from what the kernel said, and changes nothing.

use std::collections::HashSet;

use super::{
    error::Error,
    interface::{self, Interface, default_route},
    xdp::Options,
};

/// `ARPHRD_LOOPBACK`.
const LOOPBACK: u16 = 772;

/// An interface to protect, and what the operator should know of it.
pub(super) type Choice = (Interface, Vec<String>);

/// Names of the interfaces that would be protected: those behind `names`, or if there is none all
/// that lead to the outside and are not in `except`. A name that is missing stays.
///
/// # Errors
/// If the kernel does not answer.
pub fn protected(names: &[String], except: &[String]) -> Result<Vec<String>, Error> {
    let scene = Scene::read()?;
    let (found, missing) =
        if names.is_empty() { (scene.entries(except), Vec::new()) } else { scene.named(names) };
    Ok(found.into_iter().map(|(interface, _)| interface.name).chain(missing).collect())
}

/// What is to be protected at the start.
#[derive(Default)]
pub(super) struct Chosen {
    pub(super) found: Vec<Choice>,
    /// Named, and not there.
    pub(super) missing: Vec<String>,
    /// None was named: what cannot be protected does not stop the others.
    pub(super) lenient: bool,
}

/// Returns what the options ask for.
///
/// # Errors
/// If none of it is there.
pub(super) fn choose(options: &Options, scene: &Scene) -> Result<Chosen, Error> {
    if options.interfaces.is_empty() {
        let found = scene.entries(&options.unprotected);
        if found.is_empty() {
            return Err(Error::NoDefaultRoute);
        }
        return Ok(Chosen { found, missing: Vec::new(), lenient: true });
    }
    let (found, missing) = scene.named(&options.interfaces);
    match missing.first() {
        Some(name) if found.is_empty() => Err(Error::NoInterface {
            name: name.clone(),
            known: scene.all.iter().map(|interface| interface.name.clone()).collect(),
        }),
        _ => Ok(Chosen { found, missing, lenient: false }),
    }
}

/// The interfaces as the kernel describes them.
#[derive(Debug, Default)]
pub(super) struct Scene {
    /// All of them.
    pub(super) all: Vec<Interface>,
    /// Indexes of those with an address that can be reached from anywhere.
    addressed: HashSet<u32>,
    /// Names of those with a default route.
    defaults: Vec<String>,
}

impl Scene {
    /// Asks the kernel.
    ///
    /// # Errors
    /// If it does not answer.
    pub(super) fn read() -> Result<Scene, Error> {
        Ok(Scene {
            all: interface::list()?,
            addressed: interface::addressed()?,
            defaults: default_route(),
        })
    }

    /// Returns those behind the configured names, each once, and the names that are missing.
    pub(super) fn named(&self, names: &[String]) -> (Vec<Choice>, Vec<String>) {
        let (mut found, mut missing): (Vec<Choice>, _) = (Vec::new(), Vec::new());
        for name in names {
            let Some(named) = self.all.iter().find(|other| other.name == *name) else {
                missing.push(name.clone());
                continue;
            };
            let interface = self.below(named);
            let mut warnings = Vec::new();
            if interface.index != named.index {
                let kind = if named.kind == "vlan" { "VLAN" } else { &named.kind };
                warnings.push(format!(
                    "{} is a {kind} of {}: protecting {}, tagged frames included, before they are \
                     sorted to their VLANs",
                    named.name, interface.name, interface.name
                ));
            }
            warnings.extend(self.port_warning(interface));
            match found.iter_mut().find(|(other, _)| other.index == interface.index) {
                Some((_, known)) => known.extend(warnings),
                None => found.push((interface.clone(), warnings)),
            }
        }
        (found, missing)
    }

    /// Returns the interfaces at which a program sees everything that comes to this host from
    /// outside, each once, those of the default routes first. Not those named in `except`.
    pub(super) fn entries(&self, except: &[String]) -> Vec<Choice> {
        let mut found: Vec<Choice> = Vec::new();
        for way in self.ways_in(except) {
            let interface = self.below(way);
            if !except.contains(&interface.name)
                && !found.iter().any(|(other, _)| other.index == interface.index)
            {
                found.push((interface.clone(), Vec::from_iter(self.port_warning(interface))));
            }
        }
        found
    }

    /// Names of the ways in that no program at the interfaces with these indexes sees.
    pub(super) fn uncovered(&self, protected: &HashSet<u32>, except: &[String]) -> Vec<String> {
        let ways = self.ways_in(except).into_iter();
        ways.filter(|way| !self.covers(protected, way)).map(|way| way.name.clone()).collect()
    }

    fn ways_in(&self, except: &[String]) -> Vec<&Interface> {
        let mut ways: Vec<_> = self
            .all
            .iter()
            .filter(|interface| self.leads_in(interface) && !except.contains(&interface.name))
            .collect();
        let rank = |interface: &Interface| {
            let place = self.defaults.iter().position(|name| *name == interface.name);
            (place.unwrap_or(usize::MAX), interface.index)
        };
        ways.sort_by_key(|interface| rank(interface));
        ways
    }

    /// Returns whether the outside reaches this host by it: it has the default route, or a global
    /// address and something else than this host and its guests at the other end.
    fn leads_in(&self, interface: &Interface) -> bool {
        if interface.link_type == LOOPBACK {
            return false;
        }
        if self.defaults.contains(&interface.name) {
            return true;
        }
        self.addressed.contains(&interface.index)
            && match interface.kind.as_str() {
                // nothing ever comes in by these
                "dummy" | "vrf" | "ifb" | "nlmon" => false,
                // both ends are here
                "veth" => interface.lower == 0,
                // that of containers and guests alone: docker0, cni0, virbr0
                "bridge" => self.outer_ports(interface).next().is_some(),
                _ => true,
            }
    }

    /// Returns the ports of a bond or bridge that do not belong to a guest or container.
    fn outer_ports(&self, whole: &Interface) -> impl Iterator<Item = &Interface> {
        let index = whole.index;
        self.all
            .iter()
            .filter(move |port| port.master == index && !matches!(&*port.kind, "veth" | "tun"))
    }

    fn covers(&self, protected: &HashSet<u32>, way: &Interface) -> bool {
        let below = self.below(way);
        let seen = |interface: &Interface| protected.contains(&interface.index);
        if seen(way) || seen(below) {
            return true;
        }
        let mut ports = self.outer_ports(below).peekable();
        ports.peek().is_some() && ports.all(|port| seen(port) || seen(self.below(port)))
    }

    /// Returns where the driver is: below a VLAN and what else only sorts frames.
    fn below<'a>(&'a self, mut interface: &'a Interface) -> &'a Interface {
        // no more steps than interfaces, whatever the kernel says
        for _ in 0..self.all.len() {
            let sorts = matches!(interface.kind.as_str(), "vlan" | "macvlan" | "ipvlan");
            let lower = self.all.iter().find(|other| other.index == interface.lower);
            match lower.filter(|_| sorts) {
                Some(lower) => interface = lower,
                None => break,
            }
        }
        interface
    }

    /// Returns what it means to protect the port of a bond or bridge and not the whole.
    fn port_warning(&self, port: &Interface) -> Option<String> {
        let mut all = self.all.iter();
        let whole = all.find(|other| port.master != 0 && other.index == port.master)?;
        let (port, whole, kind) = (&port.name, &whole.name, &whole.kind);
        let meaning = match kind.as_str() {
            "bond" => format!(
                "packets that arrive by its other ports pass; name {whole} instead, which protects \
                 all of them"
            ),
            "bridge" => format!(
                "bans hold for all that arrives by {port}, also for what {whole} forwards; packets \
                 that arrive by its other ports pass"
            ),
            _ => return None,
        };
        Some(format!("{port} is a port of the {kind} {whole}: {meaning}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `NAME KIND [under LOWER] [in MASTER] [addressed] [default]`, one a line; the line is the index.
    fn scene(text: &str) -> Scene {
        let mut scene = Scene::default();
        let names: Vec<&str> =
            text.lines().filter_map(|line| line.split_whitespace().next()).collect();
        let index = |name: &str| {
            u32::try_from(names.iter().position(|other| *other == name).unwrap() + 1).unwrap()
        };
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after =
                |word| words.iter().position(|other| *other == word).map(|at| words[at + 1]);
            let kind = if words[1] == "card" { "" } else { words[1] };
            scene.all.push(Interface {
                name: words[0].into(),
                index: index(words[0]),
                kind: kind.into(),
                link_type: if words[0] == "lo" { LOOPBACK } else { 1 },
                lower: after("under").map_or(0, index),
                master: after("in").map_or(0, index),
                ..Interface::default()
            });
            if words.contains(&"addressed") {
                scene.addressed.insert(index(words[0]));
            }
            if words.contains(&"default") {
                scene.defaults.push(words[0].into());
            }
        }
        scene
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let scene = scene(text);
        let entries = scene.entries(&[]);
        let names: Vec<&str> = entries.iter().map(|(found, _)| found.name.as_str()).collect();
        assert_eq!(names, expected, "{text}");
        let protected = entries.iter().map(|(found, _)| found.index).collect();
        assert_eq!(scene.uncovered(&protected, &[]), Vec::<String>::new(), "{text}");
    }

    #[test]
    fn the_outside_comes_in_by_addresses_and_default_routes() {
        check("lo card addressed\neth0 card addressed default", &["eth0"]);
        check("eth0 card addressed\neth1 card addressed default\neth2 card", &["eth1", "eth0"]);
        check("ppp0 card default", &["ppp0"]);
        check("eth0 card addressed default\nvx0 vxlan under eth0 addressed", &["eth0", "vx0"]);
        check(
            "eth0 card default\nwg0 wireguard addressed\ndummy0 dummy addressed",
            &["eth0", "wg0"],
        );
        check("eth0 card\neth0.5 vlan under eth0 addressed default", &["eth0"]);
        check("eth0 card addressed default\nmv0 macvlan under eth0 addressed", &["eth0"]);
        check("eth0 veth addressed default", &["eth0"]);
        check("a veth under b addressed\nb veth under a\nc veth addressed", &["c"]);
        check("", &[]);
    }

    #[test]
    fn bridges_of_containers_are_inside() {
        let docker = "eth0 card addressed default\ndocker0 bridge addressed\nv veth in docker0";
        check(docker, &["eth0"]);
        check("eth0 card default\nvirbr0 bridge addressed\nvnet0 tun in virbr0", &["eth0"]);
        let cloud =
            "eth0 card in cloudbr0\ncloudbr0 bridge addressed default\nvnet0 tun in cloudbr0";
        check(cloud, &["cloudbr0"]);
        let second = "eth0 card addressed default\neth1 card\neth1.7 vlan under eth1 in br7\n\
                      br7 bridge addressed";
        check(second, &["eth0", "br7"]);
        check("eth0 card in bond0\neth1 card in bond0\nbond0 bond addressed default", &["bond0"]);
    }

    #[test]
    fn what_is_named_may_leave_a_way_in_open() {
        let text = "eth0 card addressed default\neth1 card in bond0\neth2 card in bond0\n\
                    bond0 bond addressed\neth3 card\neth3.4 vlan under eth3 addressed";
        let scene = scene(text);
        let left_out = |names: &[&str], except: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|&name| name.into()).collect::<Vec<_>>();
            let (found, missing) = scene.named(&owned(names));
            let protected = found.iter().map(|(found, _)| found.index).collect();
            (scene.uncovered(&protected, &owned(except)).join(" "), missing.join(" "))
        };
        let said = |uncovered: &str, missing: &str| (uncovered.to_owned(), missing.to_owned());
        assert_eq!(left_out(&["eth0"], &[]), said("bond0 eth3.4", ""));
        assert_eq!(left_out(&["eth0"], &["bond0", "eth3.4"]), said("", ""));
        assert_eq!(left_out(&["eth0", "eth1"], &[]), said("bond0 eth3.4", ""), "half a bond");
        assert_eq!(left_out(&["eth0", "eth1", "eth2", "eth3"], &[]), said("", ""));
        assert_eq!(left_out(&["eth0", "bond0", "eth3.4", "eth9"], &[]), said("", "eth9"));
        let (found, _) = scene.named(&["eth3.4".into(), "eth3".into(), "eth1".into()]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].1[0].contains("eth3.4 is a VLAN of eth3"), "{found:?}");
        assert!(found[1].1[0].contains("port of the bond bond0"), "{found:?}");
    }
}
