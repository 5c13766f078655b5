//! Finds a Rust compiler together with the sources of its `core`: the active one, or the
//! distribution's, unpacked. Installs nothing.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::apt::Apt;
use crate::{command, layout};

/// The oldest compiler that the workspace builds with.
pub(crate) const OLDEST: &str = env!("CARGO_PKG_RUST_VERSION");

/// The ways to a compiler with sources, in the order in which they are tried.
pub(crate) const CANDIDATES: &[Candidate] = &[
    Candidate::Active,
    Candidate::Distribution(&Packages {
        compiler: "rustc-web",
        library: "libstd-rust-web-dev",
        source: "rust-web-src",
        clippy: "rust-web-clippy",
    }),
    Candidate::Distribution(&Packages {
        compiler: "rustc",
        library: "libstd-rust-dev",
        source: "rust-src",
        clippy: "rust-clippy",
    }),
];

pub(crate) enum Candidate {
    /// The compiler that cargo runs now.
    Active,
    /// A matched set of the distribution's packages.
    Distribution(&'static Packages),
}

pub(crate) struct Packages {
    compiler: &'static str,
    library: &'static str,
    source: &'static str,
    clippy: &'static str,
}

/// A compiler that can build `core`.
pub(crate) struct Compiler {
    /// The real `rustc`.
    pub(crate) rustc: PathBuf,
    /// The real `clippy-driver` of the same version, if there is one.
    pub(crate) clippy: Option<PathBuf>,
    /// What to pass as `--sysroot`, unless the compiler knows.
    pub(crate) sysroot: Option<PathBuf>,
    /// Folders of shared libraries that the loader would not find.
    pub(crate) libraries: Vec<PathBuf>,
    /// The major version of the LLVM inside.
    pub(crate) llvm: u32,
}

impl Candidate {
    pub(crate) fn find(&self) -> Result<Compiler> {
        match self {
            Self::Active => active(),
            Self::Distribution(packages) => packages.unpack(),
        }
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Active => out.write_str("the active Rust toolchain"),
            Self::Distribution(packages) => {
                write!(out, "the distribution's {} with {}", packages.compiler, packages.source)
            }
        }
    }
}

fn active() -> Result<Compiler> {
    let sysroot = command::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let sysroot = PathBuf::from(sysroot.trim());
    if !has_sources(&sysroot) {
        println!("setup: the active toolchain has no sources of `core`; asking rustup for them");
        if command::find("rustup").is_none() {
            bail!("{} has no rust-src, and there is no rustup to add it", sysroot.display());
        }
        let mut add = Command::new("rustup");
        command::run(add.args(["component", "add", "rust-src"]).env("RUSTUP_MAX_RETRIES", "1"))?;
        if !has_sources(&sysroot) {
            bail!("rustup added rust-src to another toolchain than {}", sysroot.display());
        }
    }
    let rustc = sysroot.join("bin/rustc");
    let about = command::output(Command::new(&rustc).arg("-vV"))?;
    let clippy = Some(sysroot.join("bin/clippy-driver")).filter(|driver| driver.exists());
    println!("setup: using {} and its rust-src", rustc.display());
    Ok(Compiler { llvm: checked(&about)?, rustc, clippy, sysroot: None, libraries: Vec::new() })
}

fn has_sources(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
}

/// The LLVM major of a compiler that is new enough, from its `rustc -vV`.
fn checked(about: &str) -> Result<u32> {
    let field = |name: &str| about.lines().find_map(|line| line.strip_prefix(name));
    let release = field("release: ").context("`rustc -vV` names no release")?;
    if older(release, OLDEST) {
        bail!("it is Rust {release}, and {OLDEST} is the oldest that will do");
    }
    let llvm = field("LLVM version: ").context("`rustc -vV` names no LLVM version")?;
    let major = llvm.split('.').next().unwrap_or_default();
    major.parse().with_context(|| format!("odd LLVM version {llvm:?}"))
}

/// Compares `1.95.0`-like versions by major and minor.
fn older(version: &str, than: &str) -> bool {
    let parts = |text: &str| -> Vec<u32> {
        text.split(|c: char| !c.is_ascii_digit()).take(2).flat_map(str::parse).collect()
    };
    parts(version) < parts(than)
}

impl Packages {
    fn unpack(&self) -> Result<Compiler> {
        let folder = layout::bpf().join(self.compiler);
        let sysroot = folder.join("usr");
        if !sysroot.join("bin/rustc").exists() || !has_sources(&sysroot) {
            self.fetch(&folder)?;
        }
        let libraries = vec![system_libraries(&folder)];
        let rustc = sysroot.join("bin/rustc");
        let mut about = Command::new(&rustc);
        about.arg("-vV").env("LD_LIBRARY_PATH", std::env::join_paths(&libraries)?);
        let about = command::output(&mut about).with_context(|| {
            format!("the unpacked {} does not run on this system", self.compiler)
        })?;
        let clippy = Some(sysroot.join("bin/clippy-driver")).filter(|driver| driver.exists());
        Ok(Compiler { llvm: checked(&about)?, rustc, clippy, sysroot: Some(sysroot), libraries })
    }

    fn fetch(&self, folder: &Path) -> Result<()> {
        let apt = Apt::open()?;
        let Some(version) = apt.version(self.compiler)? else {
            bail!("the package sources have no {}", self.compiler);
        };
        if older(&version, OLDEST) {
            bail!("the package sources have {version}, and {OLDEST} is the oldest that will do");
        }
        println!("setup: fetching {} {version} and its sources", self.compiler);
        let mut packages: Vec<String> =
            [self.compiler, self.library, self.source].map(str::to_owned).into();
        if apt.version(self.clippy)?.is_some() {
            packages.push(self.clippy.to_owned());
        }
        // The compiler's own shared library, and LLVM's with what that needs in turn.
        let mut needed = [apt.depends(self.compiler)?, apt.depends(self.library)?].concat();
        needed.retain(|name| name.starts_with("libstd-rust") || name.starts_with("libllvm"));
        for library in needed.clone().iter().filter(|name| name.starts_with("libstd-rust")) {
            needed.extend(apt.depends(library)?);
        }
        for library in needed {
            if library.starts_with("libstd-rust") {
                packages.push(library);
            } else if library.starts_with("libllvm") {
                packages.extend(apt.absent_libraries(&library)?);
            }
        }
        packages.sort();
        packages.dedup();
        apt.unpack(&packages, folder)
    }
}

/// Where Debian puts shared libraries, under a root of its own.
pub(crate) fn system_libraries(root: &Path) -> PathBuf {
    root.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH))
}

/// Whether the folder exists and holds something.
pub(crate) fn filled(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(older("1.63.0+dfsg1-2", "1.95"));
        assert!(older("1.9.0", "1.95"));
        assert!(!older("1.95.0", "1.95"));
        assert!(!older("1.96.0+dfsg1-1~deb12u2", "1.95"));
        assert!(!older("2.0.0", "1.95"));
    }

    #[test]
    fn llvm_is_read_from_the_compilers_own_words() {
        let about = "rustc 9.9.0\nrelease: 9.9.0\nLLVM version: 22.1.8\n";
        assert_eq!(checked(about).unwrap(), 22);
        assert!(checked("release: 1.2.3\nLLVM version: 3.1\n").is_err());
        assert!(checked("release: 9.9.0\n").is_err());
    }
}
