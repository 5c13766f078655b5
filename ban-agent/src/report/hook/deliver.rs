//! One delivery, by HTTP or to a command, within its time.

use std::{process::Stdio, sync::Arc, thread, time::Duration};

use tokio::{io::AsyncWriteExt as _, process::Command, sync::oneshot};
use ureq::tls::{RootCerts, TlsConfig};

use crate::children::Group;

/// Where a command is looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Posts `body` as JSON. On a thread of its own: name resolution may hang, and no task waits.
pub(super) async fn post(url: String, body: String, timeout: Duration) -> Result<(), String> {
    let (sender, answer) = oneshot::channel();
    thread::Builder::new()
        .name("hook".to_owned())
        .spawn(move || sender.send(post_now(&url, &body, timeout)))
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    match tokio::time::timeout(timeout, answer).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err("the delivery broke off".to_owned()),
        Err(_) => Err(format!("took longer than {timeout:?}")),
    }
}

fn post_now(url: &str, body: &str, timeout: Duration) -> Result<(), String> {
    // the certificates that the system trusts
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .tls_config(tls)
        .max_redirects(0)
        .user_agent(concat!("ban-agent/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent();
    let posted = agent.post(url).header("Content-Type", "application/json").send(body);
    match posted.map(|answer| answer.status()) {
        Ok(status) if status.is_success() => Ok(()),
        Ok(status) => Err(format!("answered {status}, which is no success")),
        Err(ureq::Error::Timeout(_)) => Err(format!("took longer than {timeout:?}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Runs a program with `body` on its standard input; no shell, no environment but PATH.
pub(super) async fn run(words: &[String], body: String, timeout: Duration) -> Result<(), String> {
    let (program, arguments) = words.split_first().ok_or("no command")?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot start {program}: {error}"))?;
    // killed with all it has started, should the task that waits be dropped
    let group = Group::of(&child);
    let mut input = child.stdin.take();
    let talk = async {
        if let Some(input) = &mut input {
            // a program need not read: its exit status says whether all is well
            let _ = input.write_all(body.as_bytes()).await;
        }
        drop(input);
        child.wait().await
    };
    let Ok(ended) = tokio::time::timeout(timeout, talk).await else {
        group.end(&mut child).await;
        return Err(format!("{program} took longer than {timeout:?}"));
    };
    group.leave();
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program} ended with {status}")),
        Err(error) => Err(format!("{program}: {error}")),
    }
}
