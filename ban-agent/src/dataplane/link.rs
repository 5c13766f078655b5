//! `bpf_link`: what ties the program to an interface, and stays when it is pinned.
//!
//! By bpf(2), because aya falls back to netlink silently, and such an attachment cannot be
//! pinned, nor swapped without a gap.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use super::sys::bpf;

// Commands of bpf(2), include/uapi/linux/bpf.h.
const OBJ_PIN: i32 = 6;
const OBJ_GET: i32 = 7;
const PROG_GET_FD_BY_ID: i32 = 13;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const LINK_CREATE: i32 = 28;
const LINK_UPDATE: i32 = 29;
const LINK_GET_FD_BY_ID: i32 = 30;
const LINK_GET_NEXT_ID: i32 = 31;
const LINK_DETACH: i32 = 34;

/// `BPF_XDP` of `enum bpf_attach_type`.
const ATTACH_XDP: u32 = 37;
/// `BPF_LINK_TYPE_XDP`.
const TYPE_XDP: u32 = 6;
const FLAGS_SKB: u32 = 1 << 1;
const FLAGS_DRV: u32 = 1 << 2;

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the network stack's entry.
    Generic,
}

impl XdpMode {
    /// Returns the word for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
        }
    }
}

/// The part of `struct bpf_link_info` that matters for XDP.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Info {
    kind: u32,
    /// The link.
    pub(super) id: u32,
    /// Its program.
    pub(super) program: u32,
    pad: u32,
    /// Its interface; 0 once that is gone.
    pub(super) ifindex: u32,
    rest: [u32; 15],
}

#[repr(C)]
#[derive(Default)]
struct Four([u32; 4]);

#[repr(C)]
#[derive(Default)]
struct PinAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

/// An open link. Dropping it detaches only what is not pinned.
#[derive(Debug)]
pub(super) struct Link(OwnedFd);

impl Link {
    /// Attaches `program` to the interface `ifindex`.
    ///
    /// # Errors
    /// As the kernel says: `EBUSY`/`EEXIST` if there is a program, `EOPNOTSUPP` and others if
    /// the driver refuses.
    pub(super) fn create(program: impl AsFd, ifindex: u32, mode: XdpMode) -> io::Result<Link> {
        let flags = if mode == XdpMode::Native { FLAGS_DRV } else { FLAGS_SKB };
        let mut attr = Four([raw(&program), ifindex, ATTACH_XDP, flags]);
        // SAFETY: the layout of link_create: prog_fd, target_ifindex, attach_type, flags; no
        // addresses. The kernel returns a new descriptor that nobody else owns.
        unsafe { bpf(LINK_CREATE, &mut attr).map(|fd| Link(OwnedFd::from_raw_fd(fd))) }
    }

    /// Returns the link pinned at `path`; `None` if there is none.
    ///
    /// # Errors
    /// As the kernel says.
    pub(super) fn open(path: &Path) -> io::Result<Option<Link>> {
        let name = c_path(path)?;
        let mut attr =
            PinAttr { path: name.as_ptr().expose_provenance() as u64, ..PinAttr::default() };
        // SAFETY: `name` is a C string that outlives the call; the kernel returns a new
        // descriptor that nobody else owns.
        match unsafe { bpf(OBJ_GET, &mut attr).map(|fd| OwnedFd::from_raw_fd(fd)) } {
            Ok(fd) => Ok(Some(Link(fd))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Lists every XDP link that exists, of any process.
    ///
    /// # Errors
    /// As the kernel says.
    pub(super) fn all() -> io::Result<Vec<Link>> {
        let mut links = Vec::new();
        let mut attr = Four::default();
        // SAFETY: the layout of get_next_id: start_id, next_id; no addresses.
        while unsafe { bpf(LINK_GET_NEXT_ID, &mut attr) }.is_ok() {
            let [_, next, ..] = attr.0;
            let mut by_id = Four([next, 0, 0, 0]);
            // SAFETY: the layout of get_fd_by_id: the id; a new descriptor comes back.
            let link = unsafe { bpf(LINK_GET_FD_BY_ID, &mut by_id) }
                // SAFETY: as above.
                .map(|fd| Link(unsafe { OwnedFd::from_raw_fd(fd) }));
            if let Ok(link) = link
                && link.info().is_ok_and(|info| info.kind == TYPE_XDP)
            {
                links.push(link);
            }
            attr = Four([next, 0, 0, 0]);
        }
        Ok(links)
    }

    /// Returns what the kernel knows of it.
    ///
    /// # Errors
    /// As the kernel says.
    pub(super) fn info(&self) -> io::Result<Info> {
        let mut info = Info::default();
        let length = u32::try_from(size_of::<Info>()).map_err(io::Error::other)?;
        let info_address = std::ptr::from_mut(&mut info).expose_provenance() as u64;
        let mut attr = InfoAttr { fd: raw(&self.0), length, info: info_address };
        // SAFETY: `info` has room for `length` bytes and outlives the call.
        unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
        Ok(info)
    }

    /// Puts `program` in the place of the link's program: atomically, no packet in between.
    ///
    /// # Errors
    /// As the kernel says.
    pub(super) fn update(&self, program: impl AsFd) -> io::Result<()> {
        let mut attr = Four([raw(&self.0), raw(&program), 0, 0]);
        // SAFETY: the layout of link_update: link_fd, new_prog_fd, flags, old_prog_fd.
        unsafe { bpf(LINK_UPDATE, &mut attr) }.map(|_| ())
    }

    /// Pins it: from now on it stays without us.
    ///
    /// # Errors
    /// As the kernel says.
    pub(super) fn pin(&self, path: &Path) -> io::Result<()> {
        pin(&self.0, path)
    }

    /// Takes the program off the interface, also if another process holds the link.
    ///
    /// # Errors
    /// As the kernel says.
    pub(super) fn detach(&self) -> io::Result<()> {
        let mut attr = Four([raw(&self.0), 0, 0, 0]);
        // SAFETY: the layout of link_detach: link_fd.
        unsafe { bpf(LINK_DETACH, &mut attr) }.map(|_| ())
    }
}

impl Link {
    /// As [`Link::detach`]; no error if the interface is gone, and the program with it.
    ///
    /// # Errors
    /// As the kernel says.
    pub(super) fn take_off(&self) -> io::Result<()> {
        match self.detach() {
            Err(e) if e.raw_os_error() != Some(libc::ENOLINK) => Err(e),
            _ => Ok(()),
        }
    }
}

/// Pins a map, program or link: from now on it stays without us.
///
/// # Errors
/// As the kernel says.
pub(super) fn pin(object: &impl AsFd, path: &Path) -> io::Result<()> {
    let name = c_path(path)?;
    let mut attr = PinAttr {
        path: name.as_ptr().expose_provenance() as u64,
        fd: raw(object),
        ..PinAttr::default()
    };
    // SAFETY: `name` is a C string that outlives the call.
    unsafe { bpf(OBJ_PIN, &mut attr) }.map(|_| ())
}

/// Returns a loaded program, by id: to put it back if a later step fails.
///
/// # Errors
/// As the kernel says.
pub(super) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = Four([id, 0, 0, 0]);
    // SAFETY: the layout of get_fd_by_id: the id; the new descriptor is ours alone.
    unsafe { bpf(PROG_GET_FD_BY_ID, &mut attr).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// Detaches and unpins every link in the folder `links`, and removes the folder.
///
/// # Errors
/// The first failure; what was removed before it is gone.
pub(super) fn remove_all(links: &Path) -> io::Result<Vec<String>> {
    let mut removed = Vec::new();
    for entry in fs::read_dir(links)? {
        let path = entry?.path();
        if let Some(link) = Link::open(&path)? {
            link.take_off()?;
        }
        fs::remove_file(&path)?;
        removed.push(interface_name(&path));
    }
    fs::remove_dir(links)?;
    Ok(removed)
}

/// Returns the pin's file name for an interface: bpffs allows no dots, and names of interfaces have
/// no colons (`dev_valid_name`, net/core/dev.c).
#[must_use]
pub(super) fn pin_name(interface: &str) -> String {
    interface.replace('.', ":")
}

/// Returns the name that an earlier agent gave it, which `a~b` and `a.b` shared; `None`: the same.
#[must_use]
pub(super) fn former_pin_name(interface: &str) -> Option<String> {
    interface.contains('.').then(|| interface.replace('.', "~"))
}

/// Returns the interface that a pin belongs to.
#[must_use]
pub(super) fn interface_name(pin: &Path) -> String {
    pin.file_name().unwrap_or_default().to_string_lossy().replace(':', ".")
}

fn raw(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().unsigned_abs()
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interface_has_a_pin_of_its_own() {
        let names = ["eth0", "eth0.1", "eth0~1", "a~b", "a.b", "a~.b", "a.~b", "a..b", "a~~b"];
        let mut pins = std::collections::HashSet::new();
        for name in names {
            let pin = pin_name(name);
            assert!(!pin.contains('.'), "{pin}");
            assert_eq!(interface_name(Path::new(&pin)), name, "{pin}");
            assert!(pins.insert(pin), "{name} shares a pin");
        }
    }
}
