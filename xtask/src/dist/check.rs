//! Tries a release out: each package comes and goes in a clean root and leaves nothing there, Debian's
//! own judge of packages is content, the image is one, and every program starts.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{Release, VERSION, cross, cross::Architecture};
use crate::{
    command, privilege,
    setup::{debian, system},
};

/// What lintian asks of a package that Debian itself would ship: a bug that its upload closes.
const TAGS: &str = "initial-upload-closes-no-bugs";

/// Tries everything.
///
/// # Errors
/// What is wrong with the release.
pub(super) fn all(release: &Release, arches: &[&Architecture]) -> Result<()> {
    ensure!(privilege::is_root(), "packages are installed for a try, which needs root");
    system::install(&[system::DIST_CHECK])?;
    let file = |name: String| release.folder.join(name);
    let image = file(format!("ban-agent-{VERSION}.oci.tar"));
    for arch in arches {
        let deb = file(format!("ban-agent_{VERSION}_{}.deb", arch.deb));
        let rpm = file(format!("ban-agent-{VERSION}-1.{}.rpm", arch.rpm));
        let mut lintian = Command::new("lintian");
        lintian
            .args(["--allow-root", "--fail-on", "error,warning"])
            .args(["--suppress-tags", TAGS]);
        command::run(lintian.arg(&deb))?;
        run_image(&image, arch, release)?;
        needs_no_newer_libc(&deb, arch, release)?;
        if arch.rust != std::env::consts::ARCH {
            continue;
        }
        let root = Root::new(release)?;
        root.comes_and_goes(
            root.inside(&["dpkg", "--install", &root.take(&deb)?]),
            root.inside(&["dpkg", "--purge", "ban-agent"]),
        )?;
        let root = Root::new(release)?;
        let with_rpm = |words: &[&str]| {
            let mut rpm = Command::new("rpm");
            rpm.arg("--root").arg(&root.0).args(["--dbpath", "/rpm"]).args(words);
            rpm
        };
        fs::create_dir(root.0.join("rpm")).context("cannot create rpm's database")?;
        command::run(&mut with_rpm(&["--initdb"]))?;
        let package = rpm.display().to_string();
        // Debian's own files are not in rpm's database
        root.comes_and_goes(
            with_rpm(&["--install", "--nodeps", &package]),
            with_rpm(&["--erase", "ban-agent"]),
        )?;
    }
    Ok(())
}

/// The symbols of libc that the program asks for are all of the version that its package names.
fn needs_no_newer_libc(deb: &Path, arch: &Architecture, release: &Release) -> Result<()> {
    let folder = release.folder.join("unpacked");
    command::run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&folder))?;
    let mut dump = Command::new(format!("{}-linux-gnu-objdump", arch.rust));
    let text = command::output(dump.arg("-T").arg(folder.join("usr/bin/ban-agent")))?;
    let number = |version: &str| -> Vec<u32> {
        version.split('.').filter_map(|part| part.parse().ok()).collect()
    };
    let versions = text.split(|c: char| c.is_whitespace() || "()".contains(c));
    let versions: BTreeSet<_> =
        versions.filter_map(|word| word.strip_prefix("GLIBC_")).map(number).collect();
    let newest = versions.last().context("the program asks for no symbol of libc")?;
    ensure!(*newest <= number(cross::GLIBC), "the program asks for glibc {newest:?}");
    super::remove(&folder)
}

/// The program starts out of its layer, where nothing else is.
fn run_image(image: &Path, arch: &Architecture, release: &Release) -> Result<()> {
    let folder = release.folder.join("image");
    let mut copy = Command::new("skopeo");
    copy.args(["--override-os", "linux", "--override-arch", arch.deb, "copy", "--quiet"]);
    copy.arg(format!("oci-archive:{}", image.display())).arg(format!("dir:{}", folder.display()));
    command::run(&mut copy)?;
    let manifest = fs::read_to_string(folder.join("manifest.json")).context("no manifest")?;
    let manifest: serde_json::Value = serde_json::from_str(&manifest).context("a bad manifest")?;
    let layer = manifest.pointer("/layers/0/digest").and_then(|digest| digest.as_str());
    let layer = layer.and_then(|digest| digest.strip_prefix("sha256:")).context("no layer")?;
    let root = folder.join("root");
    fs::create_dir(&root).context("cannot create the image's root")?;
    command::run(Command::new("tar").arg("-xzf").arg(folder.join(layer)).arg("-C").arg(&root))?;
    let version = if arch.rust == std::env::consts::ARCH {
        command::output(
            Command::new("chroot").arg(&root).args(["/usr/bin/ban-agent", "--version"]),
        )?
    } else {
        let mut emulated = Command::new(format!("qemu-{}-static", arch.rust));
        emulated.arg("-L").arg(&root).arg(root.join("usr/bin/ban-agent"));
        command::output(emulated.arg("--version"))?
    };
    ensure!(version.contains(VERSION), "the image's program says {version}");
    super::remove(&folder)
}

/// A clean root, for one package.
struct Root(PathBuf);

impl Root {
    fn new(release: &Release) -> Result<Self> {
        let root = Self(release.folder.join("root"));
        let clean = debian::root()?;
        command::run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(clean).arg(&root.0))?;
        Ok(root)
    }

    /// Puts a file into it; its name inside.
    fn take(&self, file: &Path) -> Result<String> {
        fs::copy(file, self.0.join("package")).context("cannot copy the package")?;
        Ok("/package".to_owned())
    }

    fn inside(&self, words: &[&str]) -> Command {
        let mut chroot = Command::new("chroot");
        chroot.arg(&self.0).args(words);
        chroot
    }

    /// What there is in it, but for what the package managers keep of their own doings.
    fn names(&self) -> Result<BTreeSet<String>> {
        let mut find = Command::new("find");
        find.arg(&self.0).args(["-xdev", "-printf", "%P\\n"]);
        let text = command::output(&mut find)?;
        let theirs = ["var/lib/dpkg", "var/log", "var/cache", "rpm", "var/lib/systemd"];
        let names = text.lines().filter(|name| !theirs.iter().any(|their| name.starts_with(their)));
        Ok(names.map(str::to_owned).collect())
    }

    fn comes_and_goes(&self, mut come: Command, mut go: Command) -> Result<()> {
        let before = self.names()?;
        command::run(&mut come)?;
        let version = command::output(&mut self.inside(&["ban-agent", "--version"]))?;
        ensure!(version.contains(VERSION), "the package's program says {version}");
        for path in
            ["/usr/share/doc/ban-agent/README.md", "/usr/lib/systemd/system/ban-agent.service"]
        {
            ensure!(self.0.join(path.trim_start_matches('/')).exists(), "{path} is not installed");
        }
        command::run(&mut go)?;
        let after = self.names()?;
        let left: Vec<_> = after.symmetric_difference(&before).collect();
        ensure!(left.is_empty(), "the package came and went, and this is not as before: {left:?}");
        Ok(())
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
