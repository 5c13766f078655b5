//! Which kernels there are, and where they come from: their own distribution's packages, unpacked
//! under `target/kernels` and kept there; nothing is installed and no source is added to the system.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    command, layout,
    setup::apt::{Apt, debian_mirror},
};

/// A kernel that we claim to run on.
#[derive(Debug)]
pub(super) struct Origin {
    /// What `--kernel` calls it.
    pub(super) name: &'static str,
    /// For the report.
    pub(super) title: &'static str,
    archive: Archive,
    suite: &'static str,
    /// The package that depends on the suite's current kernel.
    package: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Archive {
    Debian,
    Ubuntu,
}

/// Oldest first. The flavours are those for virtual machines: the same source, fewer drivers.
pub(super) const ORIGINS: [Origin; 4] = [
    Origin {
        name: "5.15",
        title: "kernel 5.15",
        archive: Archive::Ubuntu,
        suite: "jammy",
        package: "linux-image-virtual",
    },
    Origin {
        name: "6.1",
        title: "kernel 6.1",
        archive: Archive::Debian,
        suite: "bookworm",
        package: "linux-image-cloud-amd64",
    },
    Origin {
        name: "6.12",
        title: "kernel 6.12",
        archive: Archive::Debian,
        suite: "trixie",
        package: "linux-image-cloud-amd64",
    },
    Origin {
        name: "newest",
        title: "newest kernel",
        archive: Archive::Debian,
        suite: "sid",
        package: "linux-image-cloud-amd64",
    },
];

/// A kernel that lies here.
#[derive(Debug)]
pub(super) struct Kernel {
    /// As `uname -r` says.
    pub(super) release: String,
    /// The image that boots.
    pub(super) image: PathBuf,
    /// The folder that holds `lib/modules`.
    pub(super) tree: PathBuf,
}

impl Kernel {
    /// The folder of its modules, with an up-to-date `modules.dep`.
    pub(super) fn modules(&self) -> Result<PathBuf> {
        let places = [self.tree.clone(), self.tree.join("usr")];
        let place = places.iter().find(|place| place.join("lib/modules").exists());
        let place = place.with_context(|| format!("{} has no modules", self.tree.display()))?;
        let modules = place.join("lib/modules").join(&self.release);
        if !modules.join("modules.dep").exists() {
            let mut depmod = Command::new(command::find("depmod").context("there is no depmod")?);
            command::run(depmod.arg("-b").arg(place).arg(&self.release))?;
        }
        Ok(modules)
    }
}

impl Origin {
    /// The kernel, downloaded if it is not here or `fresh` is asked for.
    pub(super) fn fetch(&self, fresh: bool) -> Result<Kernel> {
        let folder = layout::kernels().join(self.name);
        let (tree, stamp) = (folder.join("tree"), folder.join("unpacked"));
        if fresh || !stamp.exists() {
            if folder.exists() {
                fs::remove_dir_all(&folder)
                    .with_context(|| format!("cannot remove {}", folder.display()))?;
            }
            self.download(&folder, &tree)
                .with_context(|| format!("cannot get {}'s kernel", self.suite))?;
            fs::write(&stamp, "").with_context(|| format!("cannot write {}", stamp.display()))?;
        }
        found(tree)
    }

    fn download(&self, folder: &Path, tree: &Path) -> Result<()> {
        let apt = Apt::private(folder.join("apt"), Some(&self.source()?))?;
        let packages = kernel_packages(&apt, self.package)?;
        if packages.is_empty() {
            bail!("{} of {} names no kernel", self.package, self.suite);
        }
        apt.unpack(&packages, tree)
    }

    /// The line for sources.list(5).
    fn source(&self) -> Result<String> {
        let (keys, mirror) = match self.archive {
            Archive::Debian => {
                (PathBuf::from("/usr/share/keyrings/debian-archive-keyring.gpg"), debian_mirror())
            }
            Archive::Ubuntu => (ubuntu_keys()?, "http://archive.ubuntu.com/ubuntu".to_owned()),
        };
        if !keys.exists() {
            bail!("{} is missing\nhint: apt-get install debian-archive-keyring", keys.display());
        }
        Ok(format!("deb [arch=amd64 signed-by={}] {mirror} {} main\n", keys.display(), self.suite))
    }
}

/// The kernel's own packages behind the one that only points to them: image, modules and their
/// lists, which newer releases ship apart.
fn kernel_packages(apt: &Apt, meta: &str) -> Result<Vec<String>> {
    let mut packages: Vec<String> = Vec::new();
    let mut next = vec![meta.to_owned()];
    while let Some(package) = next.pop() {
        let wanted = apt.depends(&package)?.into_iter().filter(|name| {
            let parts = ["linux-image-", "linux-base-", "linux-binary-", "linux-modules-"];
            parts.iter().any(|part| name.starts_with(part)) && name != meta
        });
        for name in wanted {
            if !packages.contains(&name) {
                next.push(name.clone());
                packages.push(name);
            }
        }
    }
    Ok(packages)
}

/// The keys of Ubuntu's archive, from Debian's archive, so that one trusted key leads to the other.
fn ubuntu_keys() -> Result<PathBuf> {
    let keys = PathBuf::from("usr/share/keyrings/ubuntu-archive-keyring.gpg");
    let installed = Path::new("/").join(&keys);
    if installed.exists() {
        return Ok(installed);
    }
    let folder = layout::kernels().join("ubuntu-keys");
    let unpacked = folder.join("tree").join(&keys);
    if !unpacked.exists() {
        let trixie = ORIGINS.iter().find(|origin| origin.suite == "trixie");
        let source = trixie.context("trixie is not among the kernels")?.source()?;
        let apt = Apt::private(folder.join("apt"), Some(&source))?;
        apt.unpack(&["ubuntu-keyring".to_owned()], &folder.join("tree"))?;
    }
    Ok(unpacked)
}

/// What was unpacked: the image is `boot/vmlinuz-RELEASE`, in newer packages `vmlinuz` beside the
/// modules.
fn found(tree: PathBuf) -> Result<Kernel> {
    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let (boot, modules) = (tree.join("boot"), tree.join("usr/lib/modules"));
    let in_boot = names(&boot).into_iter().filter_map(|name| {
        let release = name.strip_prefix("vmlinuz-")?.to_owned();
        Some((release, boot.join(name)))
    });
    let beside = names(&modules).into_iter().map(|release| {
        let image = modules.join(&release).join("vmlinuz");
        (release, image)
    });
    let Some((release, image)) = in_boot.chain(beside).find(|(_, image)| image.is_file()) else {
        bail!("{} holds no kernel\nhint: once more with --fresh", tree.display());
    };
    Ok(Kernel { release, image, tree })
}
