//! The stage of the system ring: an edge host to protect, and the outside with an attacker and a
//! normal client, joined by one link. Everything has a name of its own and goes when it is
//! dropped; keep it longer than the processes on it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::{
    guest,
    host::Host,
    net::{Namespace, join},
    process::Pins,
};

/// The edge's addresses.
pub const EDGE: (&str, &str) = ("192.0.2.1", "2001:db8::1");
/// Who guesses passwords.
pub const ATTACKER: (&str, &str) = ("192.0.2.66", "2001:db8::66");
/// Who does not.
pub const CLIENT: (&str, &str) = ("192.0.2.7", "2001:db8::7");
/// Whom forged text names; exists, and sends nothing that is wrong.
pub const VICTIM: (&str, &str) = ("192.0.2.99", "2001:db8::99");
/// The link, by the same name at both ends.
pub const DEVICE: &str = "eth0";

/// Two namespaces, a folder, a name for pins.
#[derive(Debug)]
pub struct Stage {
    /// The host that is protected.
    pub edge: Namespace,
    /// Everybody else.
    pub outside: Namespace,
    pins: Pins,
    folder: TempDir,
}

impl Stage {
    /// Builds it: on two cards in the kernel ring's guest, on a veth pair everywhere else.
    pub fn build() -> Result<Self> {
        if !guest::inside() {
            return Self::on_veth();
        }
        Self::laid(DEVICE, DEVICE, |edge, outside| {
            guest::card(0, edge, DEVICE)?;
            guest::card(1, outside, DEVICE)
        })
    }

    /// Builds it on a veth pair, which can be deleted.
    pub fn on_veth() -> Result<Self> {
        Self::laid(DEVICE, DEVICE, |edge, outside| join(edge, DEVICE, outside, DEVICE))
    }

    /// Builds it with whatever `lay` lays between the edge and the outside; the addresses go to
    /// these two devices.
    pub fn laid(
        near: &str,
        far: &str,
        lay: impl FnOnce(&Namespace, &Namespace) -> Result<()>,
    ) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let edge = Namespace::new("edge")?;
        let outside = Namespace::new("out")?;
        lay(&edge, &outside)?;
        for (namespace, device, addresses) in
            [(&edge, near, &[EDGE][..]), (&outside, far, &[ATTACKER, CLIENT, VICTIM][..])]
        {
            for (v4, v6) in addresses {
                namespace.address(device, &format!("{v4}/24"))?;
                namespace.address(device, &format!("{v6}/64"))?;
            }
        }
        let pins = Pins::new(&format!("ban-test-{}-{number}", std::process::id()));
        // daemons that gave up root have to read it
        let folder = tempfile::Builder::new().prefix("ban-test-").tempdir()?;
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(Self { edge, outside, pins, folder })
    }

    /// A file of the stage's own.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes such a file.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.file(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Where the agent's pins go.
    pub fn pins(&self) -> &Path {
        self.pins.path()
    }

    /// Who guesses passwords.
    pub fn attacker(&self) -> Host<'_> {
        Host::new(&self.outside, ATTACKER)
    }

    /// Who does not.
    pub fn client(&self) -> Host<'_> {
        Host::new(&self.outside, CLIENT)
    }

    /// Whether a program sits on the link's edge end, as the kernel tells.
    pub fn attached(&self) -> Result<bool> {
        Ok(self.edge.ip(&format!("-details link show {DEVICE}"))?.contains("xdp"))
    }
}
