//! HAProxy in front of a Ceph dashboard that refuses as the real one does, logging `httplog` lines by
//! UDP as its operators have it.

use anyhow::Result;

use super::{await_port, spawn};
use crate::{process::Process, stage::Stage};

/// HAProxy on port 8443.
#[derive(Debug)]
pub struct Haproxy {
    _process: Process,
}

impl Haproxy {
    /// Its port.
    pub const PORT: u16 = 8443;
    /// A request that the dashboard refuses.
    pub const BAD: &str = "POST /api/auth";
    /// A request with a token that has expired.
    pub const STALE: &str = "GET /api/summary";
    /// A request that is served.
    pub const GOOD: &str = "GET /";

    /// Starts it; its log goes to this UDP port on loopback.
    pub fn start(stage: &Stage, syslog: u16) -> Result<Self> {
        let text = format!(
            "global\n  log 127.0.0.1:{syslog} local1\n\
             defaults\n  mode http\n  log global\n  option httplog\n\
             \x20 timeout connect 2s\n  timeout client 30s\n  timeout server 2s\n\
             frontend dashboard\n  bind 0.0.0.0:{port}\n  bind :::{port} v6only\n\
             \x20 default_backend ceph-dashboard\n\
             backend ceph-dashboard\n  server mon01 127.0.0.1:8097\n\
             frontend mon01\n  bind 127.0.0.1:8097\n  no log\n\
             \x20 http-request return status 400 content-type text/plain string no if \
             {{ path_beg /api/auth }}\n\
             \x20 http-request return status 401 content-type text/plain string no if \
             {{ path_beg /api }}\n\
             \x20 http-request return status 200 content-type text/plain string yes\n",
            port = Self::PORT,
        );
        let config = stage.write("haproxy.cfg", &text)?;
        let mut command = stage.edge.command("haproxy");
        let mut process = spawn(stage, "haproxy", command.arg("-db").arg("-f").arg(config))?;
        await_port(stage, "haproxy", &mut process, Self::PORT)?;
        Ok(Self { _process: process })
    }
}
