//! Events as documents of the Elastic Common Schema 8 (<https://www.elastic.co/docs/reference/ecs>);
//! what it has no name for is under `ban_agent`.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Action, Ban, Dropped, Event, Geo, Shown, What, escape, what::transport};
use crate::{alarm::Alarm, ledger::Cause, net::IpNet};

/// Version of the schema whose names are used.
const ECS: &str = "8.17.0";

/// Who observes: the same in every document.
#[derive(Clone, Debug)]
pub struct Observer {
    hostname: String,
    geo: Geo,
}

impl Observer {
    /// This host, that knows by `geo` where others are.
    #[must_use]
    pub fn here(geo: Geo) -> Observer {
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Observer { hostname: escape(hostname.as_bytes()), geo }
    }

    /// Returns where others are.
    #[must_use]
    pub fn geo(&self) -> &Geo {
        &self.geo
    }

    /// Returns the name of this host, escaped.
    #[must_use]
    pub fn hostname(&self) -> &str {
        &self.hostname
    }
}

/// Returns the document of one event; `number`: its number since the agent started.
#[must_use]
pub fn document(event: &Event, number: u64, observer: &Observer) -> Value {
    let shape = shape(&event.what);
    let mut document = frame(event.at, event.what.to_string(), &shape, observer);
    put(&mut document, &["event", "sequence"], number.into());
    for (path, value) in fields(&event.what) {
        put(&mut document, path, value);
    }
    if let Some(geo) = event.what.address().and_then(|address| observer.geo.of(address)) {
        put(&mut document, &["source", "geo"], geo);
    }
    document
}

/// Returns a document that says how many events its reader did not get.
#[must_use]
pub fn lost(count: u64, observer: &Observer) -> Value {
    let message = format!("{count} events were lost: they came faster than they were taken");
    let shape = Shape {
        action: "events-lost",
        kind: "pipeline_error",
        category: &["host"],
        kinds: &["error"],
    };
    let mut document = frame(Timestamp::now(), message, &shape, observer);
    put(&mut document, &["ban_agent", "lost"], count.into());
    document
}

/// Returns what every document has.
fn frame(at: Timestamp, message: String, shape: &Shape, observer: &Observer) -> Value {
    json!({
        "@timestamp": format!("{at:.3}"),
        "ecs": { "version": ECS },
        "message": message,
        "event": {
            "kind": shape.kind,
            "category": shape.category,
            "type": shape.kinds,
            "action": shape.action,
            "module": "ban_agent",
            "dataset": "ban_agent.events",
        },
        "observer": {
            "vendor": "ban-agent",
            "product": "ban-agent",
            "type": "ips",
            "version": env!("CARGO_PKG_VERSION"),
            "hostname": observer.hostname,
        },
    })
}

/// How ECS sorts an event.
struct Shape {
    action: &'static str,
    kind: &'static str,
    category: &'static [&'static str],
    kinds: &'static [&'static str],
}

fn shape(what: &What) -> Shape {
    const IDS: &[&str] = &["intrusion_detection", "network"];
    const NET: &[&str] = &["network"];
    const HOST: &[&str] = &["host"];
    let of = |action, kind, category, kinds| Shape { action, kind, category, kinds };
    match what {
        What::Ban(ban) => match ban.action {
            Action::Ban => of("ban", "event", IDS, &["denied", "start"]),
            Action::Extend => of("ban-extended", "event", IDS, &["denied"]),
            Action::Restore => of("ban-restored", "event", IDS, &["denied"]),
            Action::Unban(_) => of("unban", "event", IDS, &["allowed", "end"]),
        },
        What::Found { .. } => of("failure-found", "event", &["intrusion_detection"], &["info"]),
        What::Refused { .. } => of("ban-refused", "event", IDS, &["allowed", "info"]),
        What::Stopped { .. } => of("jail-stopped", "alert", HOST, &["error"]),
        What::Resumed { .. } => of("jail-resumed", "event", HOST, &["info"]),
        What::AlarmBegun(_) => of("alarm-begun", "alert", HOST, &["error"]),
        What::AlarmEnded(_) => of("alarm-ended", "event", HOST, &["info"]),
        What::InterfaceLost { .. } => of("interface-lost", "alert", HOST, &["error"]),
        What::InterfaceAttached { .. } => of("interface-attached", "event", HOST, &["info"]),
        What::Dropped(dropped) if dropped.dry_run => {
            of("packet-matched", "event", NET, &["connection", "allowed"])
        }
        What::Dropped(_) => of("packet-dropped", "event", NET, &["connection", "denied"]),
    }
}

type Fields = Vec<(&'static [&'static str], Value)>;

fn fields(what: &What) -> Fields {
    match what {
        What::Ban(ban) => of_ban(ban),
        What::Found { jail, address, time } => {
            let mut fields = source(*address);
            fields.push((&["rule", "name"], text(jail)));
            fields.push((&["ban_agent", "line_time"], format!("{time:.3}").into()));
            fields
        }
        What::Refused { jail, prefix, reason } => {
            let mut fields = source(*prefix);
            fields.push((&["rule", "name"], text(jail)));
            fields.push((&["event", "reason"], text(reason)));
            fields
        }
        What::Stopped { jail, reason } => {
            vec![(&["rule", "name"], text(jail)), (&["event", "reason"], text(reason))]
        }
        What::Resumed { jail } => vec![(&["rule", "name"], text(jail))],
        What::AlarmBegun(alarm) => {
            let mut fields = of_alarm(alarm);
            fields.push((&["ban_agent", "remedy"], text(&alarm.remedy)));
            fields
        }
        What::AlarmEnded(alarm) => of_alarm(alarm),
        What::InterfaceLost { name } | What::InterfaceAttached { name } => {
            vec![(&["observer", "ingress", "interface", "name"], text(name))]
        }
        What::Dropped(dropped) => of_packet(dropped),
    }
}

fn of_alarm(alarm: &Alarm) -> Fields {
    let mut fields: Fields = vec![
        (&["ban_agent", "alarm"], alarm.name.word().into()),
        (&["event", "reason"], text(&alarm.text)),
        (&["ban_agent", "since"], format!("{:.3}", alarm.since).into()),
    ];
    if !alarm.about.is_empty() {
        fields.push((&["ban_agent", "about"], text(&alarm.about)));
    }
    fields
}

fn of_ban(ban: &Ban) -> Fields {
    let mut fields = source(ban.prefix);
    fields.push((&["rule", "name"], text(&ban.holder.to_string())));
    if let Action::Unban(cause) = ban.action {
        fields.push((&["event", "reason"], cause.to_string().into()));
        fields.push((&["ban_agent", "cause"], word(cause).into()));
    } else {
        let until = ban.until.map(|until| format!("{until:.3}"));
        fields.push((&["ban_agent", "until"], until.into()));
    }
    if let Some(reason) = &ban.reason {
        fields.push((&["event", "reason"], text(reason)));
    }
    if let Some(failures) = ban.failures {
        fields.push((&["ban_agent", "failures"], failures.into()));
    }
    if let Some(user) = ban.by {
        fields.push((&["user", "id"], user.to_string().into()));
    }
    fields
}

fn of_packet(dropped: &Dropped) -> Fields {
    let mut fields = source(crate::net::host(dropped.address));
    fields.push((&["observer", "ingress", "interface", "name"], text(&dropped.interface)));
    fields.push((&["network", "bytes"], dropped.length.into()));
    if let Some((protocol, port)) = dropped.target {
        fields.push((&["network", "iana_number"], protocol.to_string().into()));
        fields.push((&["network", "transport"], transport(protocol).into()));
        if port != 0 {
            fields.push((&["destination", "port"], port.into()));
        }
    }
    fields
}

/// `source.ip` is one address, as Elasticsearch has it; a network is in `ban_agent.network`, too.
fn source(prefix: IpNet) -> Fields {
    let family = if prefix.addr().is_ipv4() { "ipv4" } else { "ipv6" };
    let mut fields: Fields = vec![
        (&["source", "ip"], prefix.addr().to_string().into()),
        (&["source", "address"], Shown(prefix).to_string().into()),
        (&["network", "type"], family.into()),
    ];
    if prefix.prefix_len() != prefix.max_prefix_len() {
        fields.push((&["ban_agent", "network"], prefix.to_string().into()));
    }
    fields
}

fn word(cause: Cause) -> &'static str {
    match cause {
        Cause::Expired => "expired",
        Cause::Released => "released",
        Cause::Allowed => "allowed",
        Cause::Evicted => "evicted",
    }
}

fn text(text: &str) -> Value {
    escape(text.as_bytes()).into()
}

fn put(document: &mut Value, path: &[&str], value: Value) {
    let Some((last, folders)) = path.split_last() else { return };
    let mut at = document;
    for folder in folders {
        let Value::Object(fields) = at else { return };
        at = fields.entry(*folder).or_insert_with(|| Map::new().into());
    }
    if let Value::Object(fields) = at {
        fields.insert((*last).to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Bus, ledger::Holder};

    fn told(what: What) -> Value {
        let at = "2026-11-20T12:00:00.123456Z".parse().unwrap();
        document(&Event { at, what }, 7, Bus::default().observer())
    }

    #[test]
    fn a_network_has_an_address_that_elasticsearch_takes() {
        let ban = told(What::Ban(Ban {
            action: Action::Unban(Cause::Expired),
            holder: Holder::Jail("ssh\u{202e}d".into()),
            prefix: "2001:db8:1::/48".parse().unwrap(),
            until: None,
            failures: None,
            reason: None,
            by: Some(1000),
        }));
        for (place, expected) in [
            ("/@timestamp", json!("2026-11-20T12:00:00.123Z")),
            ("/event/action", json!("unban")),
            ("/event/type", json!(["allowed", "end"])),
            ("/event/sequence", json!(7)),
            ("/event/reason", json!("its time was up")),
            ("/source/ip", json!("2001:db8:1::")),
            ("/source/address", json!("2001:db8:1::/48")),
            ("/ban_agent/network", json!("2001:db8:1::/48")),
            ("/ban_agent/cause", json!("expired")),
            ("/network/type", json!("ipv6")),
            ("/rule/name", json!("ssh\\u{202e}d")),
            ("/user/id", json!("1000")),
        ] {
            assert_eq!(ban.pointer(place), Some(&expected), "{place}");
        }
        assert_eq!(ban.pointer("/ban_agent/until"), None);
    }

    #[test]
    fn a_packet_names_where_it_went() {
        let dropped = |target, dry_run| {
            told(What::Dropped(Dropped {
                address: "192.0.2.1".parse().unwrap(),
                interface: "eth0".into(),
                length: 60,
                target,
                dry_run,
            }))
        };
        let packet = dropped(Some((6, 22)), false);
        assert_eq!(packet["event"]["action"], "packet-dropped");
        assert_eq!(packet["message"], "dropped 60 bytes of 192.0.2.1 on eth0, to tcp/22");
        assert_eq!(packet["destination"]["port"], 22);
        assert_eq!(packet["network"]["transport"], "tcp");
        let packet = dropped(None, true);
        assert_eq!(packet["event"]["action"], "packet-matched");
        assert_eq!((packet.get("destination"), packet.pointer("/network/transport")), (None, None));
    }
}
