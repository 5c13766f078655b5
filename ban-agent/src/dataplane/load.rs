//! Loads the embedded program over the pinned maps, making those that are missing.

use std::{
    error::Error as StdError,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use aya::{
    Ebpf, EbpfError, EbpfLoader, VerifierLogLevel,
    maps::MapData,
    programs::{ProgramError, ProgramFd, TestRun as _, TestRunOptions, Xdp as Program},
    util::KernelVersion,
};

use super::{error::Error, interface::Framing};

/// The program, compiled by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ban-ebpf"));

/// Maps that are pinned, by their names in the object.
pub const PINNED: [&str; 13] = [
    "ban_v4",
    "ban_v6",
    "site_v6",
    "net_v4",
    "net_v6",
    "allow_v4",
    "allow_v6",
    "port_sets",
    "gate_v4",
    "gate_v6",
    "settings",
    "verdicts",
    "events",
];
/// Those whose size may have to change: it follows from `max_bans`, or an earlier version made them.
pub(super) const SIZED: [&str; 7] =
    ["ban_v4", "ban_v6", "site_v6", "net_v4", "net_v6", "allow_v4", "allow_v6"];
/// Hash buckets for each ban: entries are made when they are needed, so more buckets than bans
/// cost 16 bytes each and save a lookup from walking a chain through memory.
pub(super) const BUCKETS: u32 = 4;

const FLOOR: &str = "5.15";
/// Lines of a verifier log that are shown.
const TAIL: usize = 3;

/// How large the program is, as the kernel counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramSize {
    /// Instructions that the verifier walked through, all branches.
    pub verified: u32,
    /// Bytes of BPF instructions.
    pub translated: u32,
    /// Bytes of machine code.
    pub jited: u32,
}

/// One loaded copy of the program, counting in its slot.
pub struct Loaded {
    /// Owns the program and those maps that are not pinned.
    pub(super) ebpf: Ebpf,
    name: &'static str,
    /// The packet program for Ethernet on this kernel.
    usual: &'static str,
    id: Option<u32>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Loaded {
    /// Loads a copy for `slot`, over the maps in the folder `pins`; maps it has to make hold `max_bans`.
    ///
    /// # Errors
    /// If the kernel refuses; maps that were made stay pinned.
    pub fn new(pins: &Path, max_bans: u32, slot: u32) -> Result<Loaded, Error> {
        Loaded::over(|name| pins.join(name), max_bans, slot)
    }

    /// As [`Loaded::new`], with a path for each map.
    ///
    /// # Errors
    /// If the kernel refuses; maps that were made stay pinned.
    pub(super) fn over(
        pin: impl Fn(&str) -> PathBuf,
        max_bans: u32,
        slot: u32,
    ) -> Result<Loaded, Error> {
        let version = KernelVersion::current().map_err(|_| Error::OldKernel {
            found: "of unknown version".to_owned(),
            needed: FLOOR,
        })?;
        if version < KernelVersion::new(5, 15, 0) {
            return Err(Error::OldKernel { found: release(), needed: FLOOR });
        }
        let name =
            if version < KernelVersion::new(5, 18, 0) { "ban_agent_flat" } else { "ban_agent" };
        let mut loader = EbpfLoader::new();
        loader.override_global("SLOT", &slot, true);
        if log::log_enabled!(log::Level::Trace) {
            loader.verifier_log_level(VerifierLogLevel::VERBOSE | VerifierLogLevel::STATS);
        }
        for map in PINNED {
            loader.map_pin_path(map, pin(map));
        }
        for map in SIZED {
            loader.map_max_entries(map, entries(map, max_bans));
        }
        loader.map_pin_path("AYA_LOGS", pin("logs"));
        let ebpf = loader.load(OBJECT).map_err(load_error)?;
        Ok(Loaded { ebpf, name, usual: name, id: None })
    }

    /// Returns the packet program, loaded on first use.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn program(&mut self) -> Result<&mut Program, Error> {
        self.loaded(self.name)
    }

    /// Returns the clock program, loaded on first use.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn clock(&mut self) -> Result<&mut Program, Error> {
        self.loaded("ban_clock")
    }

    /// Takes the packet program for interfaces of that kind.
    #[must_use]
    pub(super) fn framed(mut self, framing: Framing) -> Loaded {
        self.frame(framing);
        self
    }

    /// See [`Loaded::framed`].
    pub(super) fn frame(&mut self, framing: Framing) {
        let name = match framing {
            Framing::Ethernet => self.usual,
            Framing::Bare => "ban_agent_bare",
        };
        if self.name != name {
            (self.name, self.id) = (name, None);
        }
    }

    /// Returns the packet program's id in the kernel.
    ///
    /// # Errors
    /// If the kernel refuses it, or does not tell.
    pub(super) fn id(&mut self) -> Result<u32, Error> {
        if let Some(id) = self.id {
            return Ok(id);
        }
        let info = self.program()?.info().map_err(|e| program_error("look at the program", e))?;
        self.id = Some(info.id());
        Ok(info.id())
    }

    /// Returns the packet program, for the kernel.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub(super) fn descriptor(&mut self) -> Result<&ProgramFd, Error> {
        self.program()?.fd().map_err(|e| program_error("use the program", e))
    }

    /// Another program of the object in place of the packet program.
    #[must_use]
    pub fn named(self, name: &'static str) -> Loaded {
        Loaded { name, id: None, ..self }
    }

    /// Runs the program over `frame` as if it had come in `count` times, and lets the kernel do
    /// with each what the program says (`BPF_F_TEST_XDP_LIVE_FRAMES`, 5.18).
    ///
    /// # Errors
    /// If the kernel refuses.
    #[cfg(feature = "bench")]
    pub fn run_live(&mut self, frame: &[u8], count: u32) -> Result<(), Error> {
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat: count,
            attrs: aya::programs::TestRunAttrs::new().xdp_live_frames(64),
            ..TestRunOptions::new()
        };
        let result = self.program()?.test_run(options);
        result.map(|_| ()).map_err(|e| program_error("send frames", e))
    }

    /// Returns what the kernel made of the packet program.
    ///
    /// # Errors
    /// If the kernel refuses it, or does not tell.
    pub fn size(&mut self) -> Result<ProgramSize, Error> {
        let info = self.program()?.info().map_err(|e| program_error("look at the program", e))?;
        Ok(ProgramSize {
            verified: info.verified_instruction_count().unwrap_or(0),
            translated: info.size_translated().unwrap_or(0),
            jited: info.size_jitted(),
        })
    }

    /// Runs the packet program over `frame`, `repeat` times (`BPF_PROG_TEST_RUN`). Its XDP action
    /// and the time for one run.
    ///
    /// # Errors
    /// If the kernel refuses, as it does a frame shorter than an Ethernet header.
    pub fn run(&mut self, frame: &[u8], repeat: u32) -> Result<(u32, Duration), Error> {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
        let result = self.program()?.test_run(options);
        let result = result.map_err(|e| program_error("run the program", e))?;
        Ok((result.return_value, result.duration))
    }

    fn loaded(&mut self, name: &'static str) -> Result<&mut Program, Error> {
        let program = self.ebpf.program_mut(name).ok_or(Error::Missing { name })?;
        let program: &mut Program =
            program.try_into().map_err(|e| program_error("find the program", e))?;
        if program.fd().is_err() {
            program.load().map_err(|e| program_error("load the program", e))?;
        }
        Ok(program)
    }

    /// Returns a pinned map.
    ///
    /// # Errors
    /// If the object has none of that name.
    pub fn map(&self, name: &'static str) -> Result<&MapData, Error> {
        use aya::maps::Map;
        match self.ebpf.map(name) {
            Some(
                Map::HashMap(data)
                | Map::LpmTrie(data)
                | Map::Array(data)
                | Map::PerCpuArray(data)
                | Map::RingBuf(data),
            ) => Ok(data),
            _ => Err(Error::Missing { name }),
        }
    }
}

/// Returns what the kernel is told to be the size of the map `name`, one of [`SIZED`]. It makes as
/// many buckets as a hash may have entries; that no more than `max_bans` come is seen to here.
pub(super) fn entries(name: &str, max_bans: u32) -> u32 {
    if name.starts_with("allow_") {
        return ban_common::ALLOWED;
    }
    let hash = !name.starts_with("net_");
    max_bans.saturating_mul(if hash { BUCKETS } else { 1 })
}

/// Returns the running kernel's release, as uname(2) says.
#[must_use]
pub fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn load_error(error: EbpfError) -> Error {
    match error {
        EbpfError::ProgramError(error) => program_error("load the program", error),
        error if denied(&error) => Error::Permission { what: "use bpf(2)" },
        error => Error::Load { source: Box::new(error) },
    }
}

fn program_error(what: &'static str, error: ProgramError) -> Error {
    match error {
        error if denied(&error) => Error::Permission { what },
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            Error::Rejected { tail: tail(&log), log, source: io_error }
        }
        error => Error::Program { what, source: Box::new(error) },
    }
}

/// EPERM only: the verifier says EACCES for a program that it does not like.
fn denied(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some_and(|e| e.raw_os_error() == Some(libc::EPERM))
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// Returns the last lines of a verifier log that say why: without its statistics.
fn tail(log: &str) -> String {
    let useful = |line: &&str| {
        !line.trim().is_empty()
            && !["processed ", "verification time", "stack depth", "peak_states"]
                .iter()
                .any(|noise| line.starts_with(noise))
    };
    let lines: Vec<&str> = log.lines().filter(useful).collect();
    lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default().join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_log_ends_with_the_reason() {
        let log = "0: R1=ctx()\n5: (61) r2 = *(u32 *)(r1 +0)\n6: (71) r3 = *(u8 *)(r2 +0)\n\
                   invalid access to packet, off=0 size=1, R2(id=0,off=0,r=0)\n\
                   R2 offset is outside of the packet\n\
                   verification time 12 usec\nstack depth 0\nprocessed 7 insns (limit 1000000)\n";
        assert_eq!(
            tail(log),
            "6: (71) r3 = *(u8 *)(r2 +0) | invalid access to packet, off=0 size=1, \
             R2(id=0,off=0,r=0) | R2 offset is outside of the packet"
        );
    }
}
