//! Tells which of a jail's actions ban (then the ban is ours) and for which ports, and reads the
//! others, which are run.

use std::{path::Path, time::Duration};

use super::{
    Error, definition::Definition, ini::Place, merge::Vars, options::Call, services::Services,
};
use crate::{
    action::{Commands, Spec, TIMEOUT},
    duration,
    net::{PortRange, Ports, Proto},
};

/// Actions that ban, by the beginning of their name.
const BANS: &[&str] = &[
    "iptables",
    "ip6tables",
    "nftables",
    "firewallcmd",
    "ufw",
    "shorewall",
    "route",
    "ipfw",
    "bsd-ipfw",
    "osx-",
    "pf",
    "npf",
    "ipfilter",
    "apf",
    "hostsdeny",
    "symbiosis-blacklist",
    "ipset",
    "xdp",
];

/// Actions that do something elsewhere, by the beginning of their name: they are run, also where
/// a jail calls one of them its banaction.
const RUNS: &[&str] = &[
    "cloudflare",
    "netscaler",
    "nginx-block-map",
    "nsupdate",
    "mail",
    "sendmail",
    "abuseipdb",
    "blocklist_de",
    "dummy",
];

/// What keeps packets out on this host: an action that calls one of them does what we do.
const FIREWALLS: &[&str] = &[
    "iptables",
    "ip6tables",
    "nft",
    "ipset",
    "firewall-cmd",
    "ufw",
    "shorewall",
    "shorewall6",
    "ip",
    "route",
    "tc",
    "ipfw",
    "pfctl",
    "npfctl",
    "xdp-filter",
];

/// Whose a ban is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Ours: the action is one of this host's packet filters.
    Ours,
    /// Ours, and the action is run as well: what the jail calls its banaction acts elsewhere.
    Both,
    /// None: the action does something else.
    None,
}

/// Returns whose the ban of `call` is; `banactions` are what the jail itself calls its banactions.
pub(super) fn whose(dir: &Path, call: &Call, banactions: &[String]) -> Result<Whose, Error> {
    let begins = |names: &[&str]| names.iter().any(|name| call.name.starts_with(name));
    if begins(RUNS) {
        return Ok(Whose::None);
    }
    if begins(BANS) {
        return Ok(Whose::Ours);
    }
    if !banactions.contains(&call.name) {
        return Ok(Whose::None);
    }
    let Some(definition) = Definition::read(dir, "action.d", call)? else { return Ok(Whose::Ours) };
    let text = definition.get("actionban", Some("inet4"))?.unwrap_or_default();
    // as a command: before its arguments, and no tag
    let inside = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '<' | '.');
    let calls = |name: &str| {
        text.match_indices(name).any(|(at, _)| {
            let (before, after) = (text.get(..at), text.get(at + name.len()..));
            !before.is_some_and(|before| before.ends_with(inside))
                && after.is_some_and(|after| after.starts_with(char::is_whitespace))
        })
    };
    let here = text.trim().is_empty() || FIREWALLS.iter().any(|name| calls(name));
    Ok(if here { Whose::Ours } else { Whose::Both })
}

/// Returns the chain of a banning action that sees packets once their ports were translated: what a
/// rule names there need not be what is on the wire.
pub(super) fn translated(dir: &Path, call: &Call) -> Result<Option<String>, Error> {
    let key = if call.name.starts_with("nftables") { "chain_hook" } else { "chain" };
    let named = |text: &String| !text.contains('<') && !text.trim().is_empty();
    let chain = match call.options.get(key).filter(|text| named(text)) {
        Some(chain) => Some(chain.clone()),
        None => match Definition::read(dir, "action.d", call)? {
            Some(definition) => definition.get(key, Some("inet4"))?.filter(named),
            None => None,
        },
    };
    let chain = chain.map(|chain| chain.trim().to_owned());
    let untouched = |chain: &str| {
        let chain = chain.to_uppercase();
        ["INPUT", "PREROUTING", "INGRESS"].iter().any(|name| chain.starts_with(name))
    };
    Ok(chain.filter(|chain| !untouched(chain)))
}

/// Returns the option that makes a firewall action let addresses in.
pub(super) fn inverts(call: &Call) -> Option<String> {
    let get =
        |key: &'static str| call.options.get(key).map(|text| (key, text.trim().to_uppercase()));
    let (key, text) = get("blocktype").or_else(|| get("type"))?;
    let word = text.split_whitespace().next().unwrap_or_default();
    matches!(word, "ACCEPT" | "RETURN" | "ALLOW").then(|| format!("{key} = {text}"))
}

/// What an action that is run amounts to.
pub(super) enum Read {
    /// Commands.
    Commands(Box<Spec>),
    /// It cannot be run, and why.
    Not(String),
}

/// Words that mean something in an action.
const KNOWN: &[&str] = &[
    "actionstart",
    "actionstart_on_demand",
    "actionstop",
    "actionflush",
    "actionreload",
    "actioncheck",
    "actionrepair",
    "actionrepair_on_unban",
    "actionban",
    "actionprolong",
    "actionreban",
    "actionunban",
    "norestored",
    "timeout",
    "name",
    "actname",
];

/// Tags whose value is not known to us.
const UNKNOWN: &[&str] =
    &["raw-ticket", "jail.banned", "jail.banned_total", "jail.found", "jail.found_total"];

/// Reads an action of `action.d` for a jail. What it asks for in vain is told to `note`.
pub(super) fn read(
    dir: &Path,
    call: &Call,
    jail: &str,
    note: &mut impl FnMut(Place, String),
) -> Result<Read, Error> {
    if Path::new(&call.name).extension().is_some_and(|extension| extension == "py") {
        return Ok(Read::Not("is not run: it is Python".to_owned()));
    }
    let mut call = call.clone();
    let name = call.options.entry("name".to_owned()).or_insert_with(|| jail.to_owned()).clone();
    let actname = match name.strip_prefix(jail) {
        Some(rest) => format!("{}{rest}", call.name),
        None => format!("{}-{name}", call.name),
    };
    let actname = call.options.entry("actname".to_owned()).or_insert(actname).clone();
    let Some(definition) = Definition::read(dir, "action.d", &call)? else {
        let what = format!("is not run: there is no {}/action.d/{}.conf", dir.display(), call.name);
        return Ok(Read::Not(what));
    };
    let flag = |word: &str, default: bool| -> Result<bool, Error> {
        let text = definition.get(word, None)?.map(|text| text.trim().to_lowercase());
        match text.as_deref() {
            None | Some("") => Ok(default),
            Some("1" | "on" | "true" | "yes") => Ok(true),
            Some("0" | "off" | "false" | "no") => Ok(false),
            Some(text) => {
                let what = format!("'{text}' is neither true nor false");
                Err(bad(&definition, word, what))
            }
        }
    };
    let timeout = match definition.get("timeout", None)? {
        None => Some(TIMEOUT),
        Some(text) => duration::parse_duration(&text)
            .map_err(|error| bad(&definition, "timeout", error.to_string()))?,
    };
    let spec = Spec {
        name: actname.into(),
        v4: commands(&definition, "inet4")?,
        v6: commands(&definition, "inet6")?,
        on_demand: flag("actionstart_on_demand", definition.has_families())?,
        timeout: timeout.unwrap_or(Duration::MAX),
        norestored: flag("norestored", false)?,
        repair_on_unban: flag("actionrepair_on_unban", false)?,
    };
    for tag in UNKNOWN.iter().filter(|tag| spec.mentions(tag)) {
        note(
            definition.place("actionban"),
            format!("action '{}': <{tag}> stays as it is", call.name),
        );
    }
    if spec.mentions("ip-host") {
        let what = "<ip-host> gives the address: names are not looked up, because an attacker chooses them";
        note(definition.place("actionban"), format!("action '{}': {what}", call.name));
    }
    for (place, what) in definition.unused(&Call { options: Vars::new(), ..call.clone() }, KNOWN) {
        // a slip in what is run; other words may be an operator's own
        if what.starts_with("'action")
            && let Some(place) = place
        {
            note(place, format!("action '{}': {what}", call.name));
        }
    }
    if definition.get("actionreban", Some("inet4"))?.is_some_and(|text| !text.trim().is_empty()) {
        let what = "actionreban is not run: nothing here forgets its bans and needs them again";
        note(definition.place("actionreban"), format!("action '{}': {what}", call.name));
    }
    Ok(Read::Commands(Box::new(spec)))
}

fn commands(definition: &Definition, family: &str) -> Result<Commands, Error> {
    let get = |word: &str| -> Result<String, Error> {
        Ok(definition
            .get(word, Some(family))?
            .map(|text| text.trim().to_owned())
            .unwrap_or_default())
    };
    Ok(Commands {
        start: get("actionstart")?,
        stop: get("actionstop")?,
        reload: get("actionreload")?,
        check: get("actioncheck")?,
        repair: get("actionrepair")?,
        ban: get("actionban")?,
        prolong: get("actionprolong")?,
        unban: get("actionunban")?,
        flush: get("actionflush")?,
    })
}

fn bad(definition: &Definition, key: &str, what: String) -> Error {
    let (place, section) = (definition.place(key), "Definition".to_owned());
    Error::Value { place, section, key: key.to_owned(), what }
}

/// Returns the ports that a banning action is limited to; empty: all traffic.
///
/// # Errors
/// What is wrong with its `port` or `protocol`.
pub(super) fn ports(call: &Call, services: &Services) -> Result<Ports, String> {
    let get =
        |key: &str| call.options.get(key).map(|text| text.trim()).filter(|text| !text.is_empty());
    let whole = ["allports", "route", "hostsdeny", "blackhole"];
    let typed = get("type").is_some_and(|text| text == "allports");
    if typed || whole.iter().any(|word| call.name.contains(word)) {
        return Ok(Ports::new());
    }
    let Some(ports) = get("port") else { return Ok(Ports::new()) };
    let mut out = Ports::new();
    for proto in get("protocol").unwrap_or("tcp").split([',', ' ']).filter(|text| !text.is_empty())
    {
        let proto = match proto {
            "tcp" => Proto::Tcp,
            "udp" => Proto::Udp,
            // Every protocol: no port says less.
            "all" | "any" => return Ok(Ports::new()),
            _ => return Err(format!("protocol '{proto}' has no ports")),
        };
        for part in ports.split([',', ' ']).filter(|text| !text.is_empty()) {
            let (low, high) = part
                .split_once([':', '-'])
                .filter(|_| {
                    // Names of services hold hyphens too.
                    services.port(part).is_none()
                })
                .unwrap_or((part, part));
            let number = |text| services.port(text).ok_or_else(|| format!("unknown port '{text}'"));
            let (low, high) = (number(low)?, number(high)?);
            if low > high {
                return Err(format!("the ports {part} run backwards"));
            }
            if (low, high) == (0, u16::MAX) {
                return Ok(Ports::new());
            }
            out.push(PortRange { proto, low, high });
        }
    }
    out.sort();
    out.dedup();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fail2ban::options;

    #[test]
    fn firewalls_are_ours_and_the_rest_is_run() {
        let folder = tempfile::tempdir().unwrap();
        let actions = folder.path().join("action.d");
        std::fs::create_dir(&actions).unwrap();
        for (name, command) in [
            ("my-firewall", "/usr/sbin/iptables -I f2b -s <ip> -j DROP"),
            ("my-sets", "sudo nft add element inet f2b banned { <ip> }"),
            ("my-router", "curl -d 'ip=<ip>&table=nftables-like' https://router.example.net/ban"),
            ("my-script", "ssh gate ban <ip>"),
        ] {
            let text = format!("[Definition]\nactionban = {command}\n");
            std::fs::write(actions.join(format!("{name}.conf")), text).unwrap();
        }
        let names = ["my-firewall", "my-sets", "my-router", "my-nothing", "cloudflare-token"];
        let banactions = names.map(str::to_owned);
        for (name, expected) in [
            ("iptables-multiport", Whose::Ours),
            ("nftables", Whose::Ours),
            ("route", Whose::Ours),
            ("hostsdeny", Whose::Ours),
            ("my-firewall", Whose::Ours),
            ("my-sets", Whose::Ours),
            // acts elsewhere
            ("my-router", Whose::Both),
            // there is no such file
            ("my-nothing", Whose::Ours),
            ("cloudflare-token", Whose::None),
            ("sendmail-whois", Whose::None),
            ("nginx-block-map", Whose::None),
            ("my-script", Whose::None),
        ] {
            let call = options::parse(name).unwrap();
            assert_eq!(whose(folder.path(), &call, &banactions).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn ports_of_actions() {
        let services = Services::system();
        for (call, expected) in [
            ("iptables-multiport[port=\"ssh\", protocol=tcp]", Ok("tcp/22")),
            (
                "iptables-multiport[port=\"http,https,8000:8010\", protocol=tcp]",
                Ok("tcp/80 tcp/443 tcp/8000-8010"),
            ),
            ("iptables-multiport[port=\"53\", protocol=\"tcp,udp\"]", Ok("tcp/53 udp/53")),
            ("iptables-multiport[port=\"0:65535\", protocol=tcp]", Ok("")),
            ("iptables-allports[port=ssh]", Ok("")),
            ("nftables[type=allports, port=ssh]", Ok("")),
            ("route", Ok("")),
            ("iptables[port=nosuchport]", Err("unknown port 'nosuchport'")),
            ("iptables[port=1, protocol=gre]", Err("protocol 'gre' has no ports")),
        ] {
            let got = ports(&options::parse(call).unwrap(), &services);
            let got = got
                .map(|ports| ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
            assert_eq!(got, expected.map(str::to_owned).map_err(str::to_owned), "{call}");
        }
    }
}
