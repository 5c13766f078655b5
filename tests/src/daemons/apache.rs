//! Apache 2.4 that wants a password, with its error log in the default format.

use std::path::PathBuf;

use anyhow::Result;

use super::{await_port, spawn};
use crate::{process::Process, stage::Stage};

/// Apache on port 8082.
#[derive(Debug)]
pub struct Apache {
    /// Its error log.
    pub log: PathBuf,
    _process: Process,
}

impl Apache {
    /// Its port.
    pub const PORT: u16 = 8082;

    /// Starts it. Nobody knows the password.
    pub fn start(stage: &Stage) -> Result<Self> {
        let log = stage.file("apache-error.log");
        let users = stage.write("htpasswd", "bob:$apr1$abcdefgh$0123456789abcdefghijkl\n")?;
        let modules: String =
            ["mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_basic"]
                .map(|name| {
                    format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")
                })
                .concat();
        let folder = stage.file("");
        let text = format!(
            "ServerRoot {folder:?}\nServerName edge\nPidFile {pid:?}\nMutex file:{folder}\n\
             ErrorLog {log:?}\n{modules}Listen 0.0.0.0:{port}\nListen [::]:{port}\n\
             DocumentRoot {folder:?}\nUser www-data\nGroup www-data\n\
             <Location \"/\">\nAuthType Basic\nAuthName staff\nAuthUserFile {users:?}\n\
             Require valid-user\n</Location>\n",
            pid = stage.file("apache.pid"),
            folder = folder.display(),
            port = Self::PORT,
        );
        let config = stage.write("apache.conf", &text)?;
        let mut command = stage.edge.command("/usr/sbin/apache2");
        command.args(["-D", "FOREGROUND", "-f"]).arg(config);
        let mut process = spawn(stage, "apache2", &mut command)?;
        await_port(stage, "apache2", &mut process, Self::PORT)?;
        Ok(Self { log, _process: process })
    }
}
