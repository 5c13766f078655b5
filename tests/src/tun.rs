//! A tun device of our own: an interface without an Ethernet header, whose other end we are.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
};

use anyhow::{Context as _, Result, ensure};

use crate::{host::within, net::Namespace};

/// The other end. The device goes with it.
#[derive(Debug)]
pub struct Tun(File);

impl Tun {
    /// Makes a device of this name in the namespace.
    pub fn new(namespace: &Namespace, name: &str) -> Result<Self> {
        let name = name.to_owned();
        let tun = within(namespace, move || open(&name).map(Self))?;
        Ok(tun)
    }

    /// Lets a packet come in by it.
    pub fn send(&mut self, packet: &[u8]) -> Result<()> {
        self.0.write_all(packet).context("cannot write to a tun device")
    }

    /// The next packet that goes out by it; `None` if none comes for a moment.
    pub fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let brief = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        if poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&brief))? == 0 {
            return Ok(None);
        }
        let mut packet = vec![0; 2048];
        let length = self.0.read(&mut packet).context("cannot read from a tun device")?;
        packet.truncate(length);
        Ok(Some(packet))
    }
}

fn open(name: &str) -> Result<File> {
    let flags = libc::O_CLOEXEC;
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(flags).open("/dev/net/tun")?;
    // SAFETY: all zero is a value of this plain struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::try_from(from)?;
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI)?;
    // SAFETY: TUNSETIFF takes an ifreq, which lives through the call.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    ensure!(done == 0, "cannot make a tun device: {}", std::io::Error::last_os_error());
    Ok(file)
}
