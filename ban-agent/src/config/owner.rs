//! Who may write the configuration. Actions, hooks and `ignorecommand` run as root: whoever can write
//! what names them is root. It looks at files, and at nothing in them.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{jail, source};

/// Written by the group, or by all users.
const GROUP: u32 = 0o020;
const OTHERS: u32 = 0o002;
/// In a folder with this bit each may remove only his own.
const STICKY: u32 = 0o1000;

/// Warns of each unix socket to which all users may write lines for jails to ban by.
pub(super) fn of_sockets(jails: &[Arc<jail::Spec>]) -> Vec<String> {
    let open = |source: &source::Spec| match source {
        source::Spec::Syslog { listen } => {
            let mode = listen.strip_prefix("unix://")?.split_once("?mode=")?.1;
            let mode = u32::from_str_radix(mode, 8).ok()?;
            (mode & 0o002 != 0).then(|| listen.clone())
        }
        _ => None,
    };
    let of = |jail: &jail::Spec| {
        let sockets = jail.sources.iter().filter_map(open);
        let warning = |listen| {
            format!(
                "[jails.{}] {listen}: every user of this host can get any address banned; let only a group write to it (docs/sources.md)",
                jail.rules.name
            )
        };
        sockets.map(warning).collect::<Vec<_>>()
    };
    jails.iter().flat_map(|jail| of(jail)).collect()
}

/// One for each file, and each of their folders, that others than root can write.
pub(super) fn warnings(files: &[PathBuf]) -> Vec<String> {
    let own = rustix::process::geteuid().as_raw();
    let folders: BTreeSet<&Path> = files.iter().filter_map(|file| file.parent()).collect();
    let all = files.iter().map(PathBuf::as_path).chain(folders);
    all.filter_map(|path| {
        let there = fs::metadata(path).ok()?;
        let why = writable(there.mode(), there.uid(), there.gid(), own)?;
        Some(format!(
            "{} can be written by {why}: whoever can is root here, for commands that it names run as \
             root; give it to root, and take that right away (chmod go-w)",
            path.display()
        ))
    })
    .collect()
}

/// Returns who else can write it.
fn writable(mode: u32, uid: u32, gid: u32, own: u32) -> Option<String> {
    if uid != 0 && uid != own {
        return Some(format!("user {uid}, who owns it"));
    }
    if mode & OTHERS != 0 && mode & STICKY == 0 {
        return Some("everybody".to_owned());
    }
    // group 0 is root's
    (mode & GROUP != 0 && gid != 0).then(|| format!("group {gid}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn others_who_can_write_are_named() {
        for (mode, uid, gid, expected) in [
            (0o100_644, 0, 0, None),
            (0o100_600, 1000, 0, Some("user 1000, who owns it")),
            (0o100_666, 0, 0, Some("everybody")),
            (0o100_664, 0, 4, Some("group 4")),
            (0o100_664, 0, 0, None),
            (0o041_777, 0, 0, None),
            (0o040_777, 0, 0, Some("everybody")),
        ] {
            assert_eq!(writable(mode, uid, gid, 0).as_deref(), expected, "{mode:o} {uid} {gid}");
        }
    }

    #[test]
    fn files_and_their_folders_are_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        fs::write(&file, "").unwrap();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        set(&file, 0o644);
        assert!(warnings(std::slice::from_ref(&file)).is_empty());
        set(&file, 0o666);
        set(folder.path(), 0o777);
        let both = warnings(std::slice::from_ref(&file));
        assert!(both.len() == 2 && both[0].contains("config.toml can be written by everybody"));
    }
}
