//! The system ring: the real agent in namespaces, with real daemons and real clients. A test owns
//! its namespaces, folder and pins, so that several run at once.

mod actions;
mod alarms;
mod apache;
mod backlog;
mod breaker;
mod confined;
mod crash;
mod entries;
mod events;
mod fail2ban;
mod guard;
mod haproxy;
mod hooks;
mod hostile;
mod idle;
mod ignore;
mod import;
mod json;
mod metrics;
mod migration;
mod namespaces;
mod nginx;
mod pipeline;
mod readers;
mod reboot;
mod recidive;
mod recipes;
mod refuse;
mod reload;
mod soak;
mod socket;
mod sshd;
mod store;
mod tunnel;
mod widen;
