//! What the sockets have in common that the agent makes in the file system.

use std::{os::unix::fs::chown, path::Path};

/// Gives a socket of ours to the group, by number; it stays root's alone where that is not allowed.
pub(crate) fn give(path: &Path, group: Option<u32>) {
    if let Some(group) = group
        && let Err(error) = chown(path, None, Some(group))
    {
        let path = path.display();
        let remedy = "in the unit, SupplementaryGroups= has to name that of [agent] socket_group";
        log::error!("only root may open {path}, no group: {error}; {remedy}");
    }
}
