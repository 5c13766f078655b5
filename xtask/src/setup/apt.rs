//! The distribution's packages without root: private lists and downloads under `target/bpf/apt`,
//! packages unpacked, never installed. The system's sources, keys and proxy settings are read.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{command, layout};

pub(crate) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Reads the system's sources into private package lists.
    pub(crate) fn open() -> Result<Self> {
        Self::private(layout::bpf().join("apt"), None)
    }

    /// Reads another architecture's packages of a Debian suite into package lists in `folder`.
    pub(crate) fn foreign(folder: PathBuf, suite: &str, architecture: &str) -> Result<Self> {
        let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let mirror = debian_mirror();
        let source = format!("deb [signed-by={keys}] {mirror} {suite} main\n");
        fs::create_dir_all(folder.join("conf.d"))
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let ours = format!(
            "APT::Architecture \"{architecture}\";\nAPT::Architectures {{ \"{architecture}\"; }};\n"
        );
        let file = folder.join("conf.d/zzz-architecture");
        fs::write(&file, ours).with_context(|| format!("cannot write {}", file.display()))?;
        Self::private(folder, Some(&source))
    }

    /// Reads `sources`, in the words of sources.list(5), into package lists in `folder`; without
    /// them, the system's.
    pub(crate) fn private(folder: PathBuf, sources: Option<&str>) -> Result<Self> {
        if command::find("apt-get").is_none() {
            bail!("there is no apt-get: this is not Debian or Ubuntu");
        }
        let apt = Self { folder };
        apt.configure(sources)?;
        let stamp = apt.folder.join("updated");
        if !stamp.exists() {
            println!("reading the distribution's package lists (private, not the system's)");
            command::run_logged(apt.command("apt-get").arg("update"), &apt.folder.join("log"))
                .context("hint: apt's mirrors must be reachable; behind a proxy set http_proxy")?;
            fs::write(&stamp, "").with_context(|| format!("cannot write {}", stamp.display()))?;
        }
        Ok(apt)
    }

    /// Writes the private configuration. The system's own is copied, so that proxies and mirrors
    /// stay in force, and what would touch the system is cleared after it.
    fn configure(&self, sources: Option<&str>) -> Result<()> {
        let parts = self.folder.join("conf.d");
        for folder in ["conf.d", "state/lists/partial", "cache/archives/partial"] {
            let folder = self.folder.join(folder);
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        if let Ok(entries) = fs::read_dir("/etc/apt/apt.conf.d") {
            for file in entries.flatten().filter(|file| file.path().is_file()) {
                // One that we may not read is one that holds a secret we do not need.
                let _unreadable = fs::copy(file.path(), parts.join(file.file_name()));
            }
        }
        let folder = self.folder.display();
        let mut ours = format!(
            "#clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n\
             #clear APT::Update::Post-Invoke-Success;\n#clear Acquire::IndexTargets;\n\
             Acquire::IndexTargets::deb::Packages {{\n  MetaKey \"$(COMPONENT)/binary-$(ARCHITECTURE)/Packages\";\n  \
             flatMetaKey \"Packages\";\n  ShortDescription \"Packages\";\n  Optional \"0\";\n}};\n\
             Acquire::Languages \"none\";\nDir::State \"{folder}/state\";\nDir::Cache \"{folder}/cache\";\n\
             Dir::State::status \"/var/lib/dpkg/status\";\nAPT::Sandbox::User \"root\";\n"
        );
        if let Some(sources) = sources {
            let list = self.folder.join("sources.list");
            fs::write(&list, sources)
                .with_context(|| format!("cannot write {}", list.display()))?;
            ours.push_str(&format!(
                "Dir::Etc::sourcelist \"{}\";\nDir::Etc::sourceparts \"/dev/null\";\n\
                 Dir::Etc::preferences \"/dev/null\";\nDir::Etc::preferencesparts \"/dev/null\";\n",
                list.display()
            ));
        }
        let first = format!("Dir::Etc::Parts \"{}\";\n", parts.display());
        for (file, text) in [(parts.join("zzz-private"), ours), (self.file(), first)] {
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }

    fn file(&self) -> PathBuf {
        self.folder.join("apt.conf")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.file()).env("LC_ALL", "C");
        command
    }

    /// The version that would be downloaded, if the sources have the package.
    pub(crate) fn version(&self, package: &str) -> Result<Option<String>> {
        let policy = command::output(self.command("apt-cache").args(["policy", package]))?;
        let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
        Ok(candidate.filter(|version| *version != "(none)").map(str::to_owned))
    }

    /// What the package depends on directly.
    pub(crate) fn depends(&self, package: &str) -> Result<Vec<String>> {
        let text = command::output(self.command("apt-cache").args(["depends", "-i", package]))?;
        let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }

    /// The shared libraries that the package needs, directly or not, and the system lacks.
    pub(crate) fn absent_libraries(&self, package: &str) -> Result<Vec<String>> {
        let mut list = self.command("apt-cache");
        list.args(["depends", "-i", "--recurse", package]);
        let text = command::output(&mut list)?;
        let names = text.lines().filter(|line| line.starts_with("lib")).map(str::trim);
        Ok(names.filter(|name| !installed(name)).map(str::to_owned).collect())
    }

    /// Downloads the packages and unpacks them into `into`.
    pub(crate) fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let debs = self.folder.join("debs");
        // Half a download or half an unpacking of an earlier try must not be taken for a whole one.
        for folder in [&debs, into] {
            if folder.exists() {
                fs::remove_dir_all(folder)
                    .with_context(|| format!("cannot remove {}", folder.display()))?;
            }
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let mut download = self.command("apt-get");
        download.arg("download").args(packages).current_dir(&debs);
        command::run_logged(&mut download, &self.folder.join("log"))
            .context("hint: a network is needed once; run the same command again when it is up")?;
        let entries =
            fs::read_dir(&debs).with_context(|| format!("cannot read {}", debs.display()))?;
        for deb in entries {
            let deb = deb.with_context(|| format!("cannot read {}", debs.display()))?.path();
            command::run(Command::new("dpkg").arg("-x").arg(&deb).arg(into))?;
        }
        fs::remove_dir_all(&debs).with_context(|| format!("cannot remove {}", debs.display()))
    }
}

/// The mirror that this system itself uses, if it is a Debian.
pub(crate) fn debian_mirror() -> String {
    let mut list = Command::new("apt-get");
    list.args(["indextargets", "--format", "$(REPO_URI)", "Origin: Debian", "Label: Debian"]);
    let text = command::output(&mut list).unwrap_or_default();
    text.lines().next().unwrap_or("http://deb.debian.org/debian").to_owned()
}

fn installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${db:Status-Abbrev}", package]);
    command::output(&mut query).is_ok_and(|status| status.starts_with("ii"))
}
