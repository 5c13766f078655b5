//! Tells which of a jail's actions ban (then the ban is ours), for which ports, and which do
//! something else.

use super::{options::Call, services::Services};
use crate::net::{PortRange, Ports, Proto};

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
    "netscaler",
    "nginx-block-map",
    "ipset",
    "xdp",
];

/// Whether `call` bans; `banactions` are what the jail itself calls its banactions.
pub(super) fn bans(call: &Call, banactions: &[String]) -> bool {
    BANS.iter().any(|name| call.name.starts_with(name)) || banactions.contains(&call.name)
}

/// The ports that a banning action is limited to; empty: all traffic.
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
