//! A real Apache 2.4 and its error log, in which an IPv6 address and a port are told apart by their
//! place alone.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use tests::{
    agent::Agent,
    daemons::Apache,
    host::{FAMILIES, Family},
    privilege,
    stage::{EDGE, Stage},
};

/// 5 failures in 10 minutes are what the shipped jail stands.
const MAXRETRY: u16 = 5;

#[test]
fn the_port_of_an_attacker_is_no_part_of_his_address() -> Result<()> {
    if !privilege::ready("Apache basic auth") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let apache = Apache::start(&stage)?;
    // each address counts by itself: what a port is taken for shows in each of them
    let jail = format!("[jails.apache-auth]\nlogpath = {:?}\nprefix_v6 = 128\n", apache.log);
    let agent = Agent::start(&stage, &jail)?;
    let attacker = stage.attacker();
    let basic = "Authorization: Basic Ym9iOndyb25n\r\n";
    for family in FAMILIES {
        for port in 2000..2000 + MAXRETRY {
            let open = attacker.connect_from(port, family, EDGE, Apache::PORT)?;
            let asked = open.context("cut off too early")?.ask_with("GET /", basic)?;
            ensure!(asked == Some(401), "a wrong password: {asked:?}");
        }
        agent.await_holders(attacker.address(family), &["apache-auth"])?;
    }
    let mut banned = agent.banned()?;
    banned.sort();
    let log = fs::read_to_string(&apache.log)?;
    let of = |family| attacker.address(family);
    ensure!(banned == [of(Family::V4), of(Family::V6)], "{banned:?}\n{log}");
    ensure!(log.contains(&format!("[client {}:2000]", of(Family::V6))), "{log}");
    Ok(())
}
