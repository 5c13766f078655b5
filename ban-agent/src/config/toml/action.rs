//! `[actions.NAME]`: from the words of the file to what is run, and back.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use toml::{Table, Value};

use super::{
    layer::{self, Fault, Layer},
    raw::{self, OneOrMany},
};
use crate::action::{Commands, Spec, TIMEOUT};

/// Returns the actions that a jail names.
pub(super) fn of_jail(
    layers: &[Layer],
    known: &BTreeMap<String, raw::Action>,
    jail: &str,
    names: Option<&OneOrMany>,
    faults: &mut Vec<Fault>,
) -> Vec<Arc<Spec>> {
    let mut specs: Vec<Arc<Spec>> = Vec::new();
    for name in names.map(OneOrMany::list).unwrap_or_default() {
        let Some(raw) = known.get(&name) else {
            let nearest = known.keys().min_by_key(|key| strsim::damerau_levenshtein(key, &name));
            let define = format!("define [actions.{name}]");
            let hint =
                nearest.map_or(define.clone(), |key| format!("did you mean '{key}'? or {define}"));
            let message = format!("jail '{jail}': there is no action '{name}'");
            // told of already where it is the action itself that makes no sense
            if faults.iter().all(|fault| (fault.kind, &fault.name) != ("actions", &name)) {
                let error =
                    layer::invalid(layers, &["jails", jail, "actions"], message, Some(hint));
                faults.push(Fault { kind: "actions", name, error });
            }
            continue;
        };
        if specs.iter().all(|spec| *spec.name != *name) {
            specs.push(Arc::new(resolve(&name, raw)));
        }
    }
    specs
}

fn resolve(name: &str, raw: &raw::Action) -> Spec {
    macro_rules! get {
        ($key:ident) => {
            raw.$key.clone().unwrap_or_default()
        };
    }
    let v4 = Commands {
        start: get!(start),
        stop: get!(stop),
        reload: get!(reload),
        check: get!(check),
        repair: get!(repair),
        ban: get!(ban),
        prolong: get!(prolong),
        unban: get!(unban),
        flush: get!(flush),
    };
    macro_rules! get6 {
        ($key:ident) => {
            raw.inet6.$key.clone().unwrap_or_else(|| v4.$key.clone())
        };
    }
    let v6 = Commands {
        start: get6!(start),
        stop: get6!(stop),
        reload: get6!(reload),
        check: get6!(check),
        repair: get6!(repair),
        ban: get6!(ban),
        prolong: get6!(prolong),
        unban: get6!(unban),
        flush: get6!(flush),
    };
    Spec {
        name: name.into(),
        on_demand: raw.start_on_demand.unwrap_or(v4 != v6),
        v4,
        v6,
        timeout: raw.timeout.as_ref().map_or(Some(TIMEOUT), |time| time.0).unwrap_or(Duration::MAX),
        norestored: raw.norestored.unwrap_or(false),
        repair_on_unban: raw.repair_on_unban.unwrap_or(false),
    }
}

/// Returns a table that resolves to this action.
pub(super) fn export(spec: &Spec) -> Table {
    let mut table = commands(&spec.v4, &Commands::default());
    let inet6 = commands(&spec.v6, &spec.v4);
    if !inet6.is_empty() {
        table.insert("inet6".into(), inet6.into());
    }
    table.insert("start_on_demand".into(), spec.on_demand.into());
    table.insert("norestored".into(), spec.norestored.into());
    table.insert("repair_on_unban".into(), spec.repair_on_unban.into());
    let timeout = if spec.timeout == Duration::MAX {
        Value::Integer(-1)
    } else {
        super::export::duration(spec.timeout)
    };
    table.insert("timeout".into(), timeout);
    table
}

/// Returns the commands that differ from `base`.
fn commands(own: &Commands, base: &Commands) -> Table {
    let words = [
        ("start", &own.start, &base.start),
        ("stop", &own.stop, &base.stop),
        ("reload", &own.reload, &base.reload),
        ("check", &own.check, &base.check),
        ("repair", &own.repair, &base.repair),
        ("ban", &own.ban, &base.ban),
        ("prolong", &own.prolong, &base.prolong),
        ("unban", &own.unban, &base.unban),
        ("flush", &own.flush, &base.flush),
    ];
    let differ = words.into_iter().filter(|(_, own, base)| own != base);
    differ.map(|(word, own, _)| (word.to_owned(), own.as_str().into())).collect()
}
