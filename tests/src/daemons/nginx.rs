//! nginx in front of a stub of CloudStack's API, with its real logs. The stub is a second server of
//! the same nginx, on loopback: it answers 401, 531 or 200 as it is asked to. `/staff` wants a
//! password of nginx itself, and `/files` looks for files.

use std::path::PathBuf;

use anyhow::Result;

use super::{await_port, spawn};
use crate::{process::Process, stage::Stage};

/// nginx on port 80.
#[derive(Debug)]
pub struct Nginx {
    /// Its access log.
    pub log: PathBuf,
    /// Its error log.
    pub errors: PathBuf,
    _process: Process,
}

impl Nginx {
    /// A request that fails with 401.
    pub const BAD_SIGNATURE: &str = "GET /client/api?command=listUsers&stub=401";
    /// A request that fails with 531.
    pub const BAD_LOGIN: &str = "POST /client/api?command=login&stub=531";
    /// A request that succeeds.
    pub const GOOD: &str = "GET /client/api?command=listZones";

    /// Starts it.
    pub fn start(stage: &Stage) -> Result<Self> {
        let log = stage.file("access.log");
        let errors = stage.file("nginx-error.log");
        // nobody knows the password that this is made of
        stage.write("htpasswd", "bob:$apr1$abcdefgh$0123456789abcdefghijkl\n")?;
        let text = format!(
            "user root; daemon off; worker_processes 1; pid {pid:?}; error_log {error:?};\n\
             events {{}}\n\
             http {{\n\
             access_log off; keepalive_requests 10000;\n\
             server {{ listen 80; listen [::]:80; access_log {log:?} combined;\n\
             location /staff {{ auth_basic staff; auth_basic_user_file {users:?}; }}\n\
             location /files {{ root {folder:?}; }}\n\
             location / {{ proxy_pass http://127.0.0.1:8096; }} }}\n\
             server {{ listen 127.0.0.1:8096;\n\
             if ($arg_stub = 401) {{ return 401 'no'; }}\n\
             if ($arg_stub = 531) {{ return 531 'no'; }}\n\
             return 200 'yes'; }}\n\
             }}\n",
            pid = stage.file("nginx.pid"),
            error = errors,
            users = stage.file("htpasswd"),
            folder = stage.file(""),
        );
        let config = stage.write("nginx.conf", &text)?;
        let mut command = stage.edge.command("nginx");
        command.arg("-c").arg(config).arg("-e").arg(&errors);
        let mut process = spawn(stage, "nginx", &mut command)?;
        await_port(stage, "nginx", &mut process, 80)?;
        Ok(Self { log, errors, _process: process })
    }
}
