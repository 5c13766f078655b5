//! The image for containers: an OCI layout in one archive, for all architectures, made without a
//! container engine. It holds the program, its configuration, Debian's libc and time zones, and nothing
//! else: no shell.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Release, VERSION, cross::Architecture, tree::Tree};
use crate::{command, layout, setup::apt::Apt};

/// Files of the package that an image needs as well.
const KEPT: [&str; 2] = ["usr/bin/ban-agent", "etc/ban-agent/config.toml"];

/// Whose libc is in the image.
const SUITE: &str = "bookworm";
/// What of it the program needs: the loader, itself, and how it looks up names.
const LIBRARIES: [&str; 10] = [
    "ld-linux-",
    "libc.so",
    "libm.so",
    "libdl.so",
    "libpthread.so",
    "librt.so",
    "libresolv.so",
    "libnss_dns.so",
    "libnss_files.so",
    "libutil.so",
];

/// Writes `ban-agent-VERSION.oci.tar`: `podman load`, `ctr image import` and
/// `skopeo copy oci-archive:` take it.
///
/// # Errors
/// If a file cannot be written.
pub(super) fn write(release: &Release, arches: &[&Architecture], trees: &[Tree]) -> Result<()> {
    let layout = Tree::empty(release.folder.join("oci"))?;
    let layout = Layout { tree: layout };
    let mut manifests = Vec::new();
    for (arch, tree) in arches.iter().zip(trees) {
        let root = Tree::empty(release.folder.join("oci-root"))?;
        for name in KEPT {
            let bits = if name.starts_with("usr/bin") { 0o755 } else { 0o644 };
            root.copy(&tree.path(name), name, bits)?;
        }
        // where state, socket and pins are mounted
        for folder in ["var/lib/ban-agent", "run/ban-agent", "sys/fs/bpf", "tmp"] {
            root.folder(folder)?;
        }
        libraries(arch, &root)?;
        let plain = release.folder.join("layer.tar");
        release.tar(&root.root, &[], &plain)?;
        let diff = sum(&plain)?;
        let mut gzip = Command::new("gzip");
        command::run(gzip.args(["--best", "--no-name", "--force"]).arg(&plain))?;
        let layer = layout.file(&release.folder.join("layer.tar.gz"))?;
        super::remove(&root.root)?;
        let config = layout.json(&json!({
            "created": release.created()?,
            "architecture": arch.deb,
            "os": "linux",
            "config": {
                "Entrypoint": ["/usr/bin/ban-agent"],
                "Cmd": ["run"],
                "Env": ["PATH=/usr/bin"],
                "Labels": {
                    "org.opencontainers.image.title": "ban-agent",
                    "org.opencontainers.image.version": VERSION,
                    "org.opencontainers.image.description": super::SUMMARY,
                    "org.opencontainers.image.source": super::REPOSITORY,
                },
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff}")]},
            "history": [{"created_by": "cargo xtask dist"}],
        }))?;
        let manifest = layout.json(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.as_type("application/vnd.oci.image.config.v1+json"),
            "layers": [layer.as_type("application/vnd.oci.image.layer.v1.tar+gzip")],
        }))?;
        manifests.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": manifest.digest(),
            "size": manifest.size,
            "platform": {"architecture": arch.deb, "os": "linux"},
        }));
    }
    let index = layout.json(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    }))?;
    let top = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": index.digest(),
        "size": index.size,
        "annotations": {"org.opencontainers.image.ref.name": VERSION},
    }]});
    layout.tree.text("index.json", &top.to_string(), 0o644)?;
    layout.tree.text("oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}", 0o644)?;
    release.tar(
        &layout.tree.root,
        &[],
        &release.folder.join(format!("ban-agent-{VERSION}.oci.tar")),
    )?;
    super::remove(&layout.tree.root)
}

/// Puts Debian's libc and time zones into the root of an image.
fn libraries(arch: &Architecture, root: &Tree) -> Result<()> {
    let folder = layout::target().join("tools/image").join(arch.deb);
    let tree = folder.join("tree");
    if !folder.join("unpacked").exists() {
        let apt = Apt::foreign(folder.join("apt"), SUITE, arch.deb)?;
        apt.unpack(&["libc6".to_owned(), "tzdata".to_owned()], &tree)?;
        fs::write(folder.join("unpacked"), "").context("cannot finish what apt fetched")?;
    }
    let triple = format!("{}-linux-gnu", arch.rust);
    let from = tree.join("lib").join(&triple);
    for file in super::tree::files(&from)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if LIBRARIES.iter().any(|library| name.starts_with(library)) {
            root.copy(&file, &format!("lib/{triple}/{name}"), 0o755)?;
        }
    }
    // by the name that programs have for their loader
    let (place, way, loader) = match arch.rust {
        "x86_64" => ("lib64", "../lib/", "ld-linux-x86-64.so.2"),
        _ => ("lib", "", "ld-linux-aarch64.so.1"),
    };
    let link = root.folder(place)?.join(loader);
    std::os::unix::fs::symlink(format!("{way}{triple}/{loader}"), &link)
        .with_context(|| format!("cannot create {}", link.display()))?;
    root.copy(&tree.join("usr/share/doc/libc6/copyright"), "usr/share/doc/libc6/copyright", 0o644)?;
    let zones: PathBuf = root.folder("usr/share")?;
    command::run(Command::new("cp").arg("-r").arg(tree.join("usr/share/zoneinfo")).arg(zones))
}

/// A folder of files that are named by their digests.
struct Layout {
    tree: Tree,
}

/// One of them.
struct Blob {
    hex: String,
    size: u64,
}

impl Blob {
    fn as_type(&self, media: &str) -> Value {
        json!({"mediaType": media, "digest": self.digest(), "size": self.size})
    }

    fn digest(&self) -> String {
        format!("sha256:{}", self.hex)
    }
}

impl Layout {
    fn json(&self, value: &Value) -> Result<Blob> {
        let file = self.tree.path("new");
        fs::write(&file, value.to_string())
            .with_context(|| format!("cannot write {}", file.display()))?;
        self.file(&file)
    }

    /// Moves it into the layout.
    fn file(&self, file: &Path) -> Result<Blob> {
        let hex = sum(file)?;
        let size =
            file.metadata().with_context(|| format!("cannot read {}", file.display()))?.len();
        let to = self.tree.folder("blobs/sha256")?.join(&hex);
        fs::rename(file, &to).with_context(|| format!("cannot move {}", file.display()))?;
        Ok(Blob { hex, size })
    }
}

fn sum(file: &Path) -> Result<String> {
    let text = command::output(Command::new("sha256sum").arg(file))?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}
