//! `reload`: takes the configuration as it stands in its files now, all of it or nothing.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::{
    clock::Now,
    config,
    control::{Access, Refusal, Reply},
    engine::{Engine, Error},
    ledger::Plan,
};

impl Engine {
    pub(super) fn reloaded(&mut self) -> Reply {
        match self.reload() {
            Ok(waiting) => {
                let mut said = format!("reloaded: {} jails run", self.config.jails.len());
                if !waiting.is_empty() {
                    said.push_str("; these take effect only at the next start: ");
                    said.push_str(&waiting.join(", "));
                }
                Reply::text(said)
            }
            Err(error) => Reply::Error(Refusal {
                code: error.code(),
                message: format!("not reloaded: {error}"),
                hint: error.hint(),
            }),
        }
    }

    /// Reads the configuration again: all of it, or nothing. The interfaces, the pins and the
    /// store stay what they were at the start: what changed and waits for the next one is named.
    pub(in crate::engine) fn reload(&mut self) -> Result<Vec<String>, Error> {
        let config = config::load(&self.path)?;
        let access = Access::resolve(None, &config.agent.operators)?;
        // nobody waits for it: the answer would have to
        let (looked, _) = mpsc::channel(1);
        self.pipeline.apply(&config.jails, &looked).map_err(Error::Filter)?;
        self.access.take_over(access);
        self.actions.apply(&config.jails);
        // who was stopped stays so, also under new limits
        self.breakers.retain(|jail, _| self.pipeline.jail(jail).is_some());
        self.watch_hits();
        let former = std::mem::replace(&mut self.config, config);
        self.note_files();
        self.forget_positions();
        let commands = former.runs_commands();
        self.resize();
        self.store.set_purge_age(self.config.agent.dbpurgeage);
        let waiting = self.config.waits_for_start(&former);
        if !waiting.is_empty() {
            log::warn!("changed, but in effect only at the next start: {}", waiting.join(", "));
        }
        if former.geoip.is_some() {
            let geo = self.bus.observer().geo().clone();
            // tens of megabytes: not here
            let reading = std::thread::Builder::new().name("geoip".into());
            if let Err(error) = reading.spawn(move || geo.refresh()) {
                log::warn!("the GeoIP database is not read again: {error}");
            }
        }
        if self.config.runs_commands() && !commands {
            log::warn!("commands have no more rights than the agent until its next start");
        }
        self.sample();
        self.take_allowed(Now::read());
        // what else may have gone amiss is mended as well
        self.patrol.hurry();
        Ok(waiting)
    }

    /// From now on the configuration's allow list counts.
    pub(in crate::engine) fn take_allowed(&mut self, now: Now) {
        let mut plan = Plan::default();
        self.set_guard(&mut plan);
        self.allow();
        self.commit(plan, Vec::new(), None, now);
    }

    /// The ledger learns whom the configuration says never to ban.
    pub(in crate::engine) fn set_guard(&mut self, plan: &mut Plan) {
        let mut allowed = self.config.agent.allowed();
        allowed.extend(self.orders.allowed());
        self.ledger.set_allowed(&allowed, plan);
        let jails = self.config.jails.iter();
        let proxies: Vec<_> =
            jails.map(|jail| (Arc::clone(&jail.rules.name), jail.rules.proxies.clone())).collect();
        self.ledger.set_proxies(&proxies, plan);
        if let Some(watcher) = &self.watcher {
            watcher.want(self.config.agent.protect.clone());
        }
    }

    /// Makes room for as many bans as the configuration says.
    pub(in crate::engine) fn resize(&mut self) {
        let max_bans = self.config.agent.max_bans;
        match self.xdp.resize(max_bans) {
            Ok(false) => {}
            Ok(true) => log::info!("the ban maps now hold {max_bans} bans per family"),
            Err(error) => {
                log::error!("the ban maps keep their size: {error}");
                return;
            }
        }
        let max_bans = usize::try_from(max_bans).unwrap_or(usize::MAX);
        self.ledger.set_max_bans(max_bans);
        self.store.set_max_bans(max_bans);
    }
}
