//! A real logrotate with the settings that distributions ship, and writers as they are: they reopen
//! their log when they are told to, or know nothing of it. Each line is counted, and once.

use std::{
    fs,
    path::PathBuf,
    process::Stdio,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tests::{
    agent::{Agent, LIMIT},
    net::run,
    privilege,
    process::{Process, eventually},
    stage::Stage,
};

/// Rotations of each log.
const ROTATIONS: usize = 6;

/// Writes 2,000 lines a second at most, which an agent that is not optimised reads in its stride; reopens its log on SIGUSR1 as nginx does (rsyslog on SIGHUP), and says
/// at its end how many lines there were.
const WRITER: &str = r#"
log=$1; stop=$2; said=$3; count=0
exec 3>>"$log"
trap 'exec 3>>"$log"' USR1
while [ ! -e "$stop" ]; do
    echo "line $count of 192.0.2.7 knocks" >&3
    count=$((count + 1))
    [ $((count % 20)) = 0 ] && sleep 0.01
done
echo "$count" >"$said.new"
mv "$said.new" "$said"
"#;

/// How a log is rotated: the settings, and whether the writer stands still meanwhile.
struct Way {
    name: &'static str,
    settings: &'static str,
    /// What is written between the copy and the cut of copytruncate is lost to everybody.
    still: bool,
}

const WAYS: [Way; 5] = [
    Way {
        name: "reopen",
        settings: "rotate 20\ncreate 0640\ncompress\ndelaycompress\npostrotate\nkill -USR1 PID\nendscript",
        still: false,
    },
    Way {
        name: "dated",
        settings: "rotate 20\ndateext\ndateformat -%Y%m%d-%s\nnocompress\ncreate\npostrotate\nkill -USR1 PID\nendscript",
        still: false,
    },
    Way {
        name: "late",
        // the writer makes the file itself
        settings: "rotate 20\nnocreate\ncompress\ndelaycompress\nsharedscripts\npostrotate\nkill -USR1 PID\nendscript",
        still: false,
    },
    Way {
        name: "copied",
        settings: "rotate 20\ncopytruncate\ncompress\ndelaycompress\nprerotate\nkill -STOP PID\nendscript\npostrotate\nkill -CONT PID\nendscript",
        still: true,
    },
    Way {
        name: "copied-dated",
        settings: "rotate 20\ncopytruncate\ndateext\ndateformat -%Y%m%d-%s\nnocompress\nprerotate\nkill -STOP PID\nendscript\npostrotate\nkill -CONT PID\nendscript",
        still: true,
    },
];

/// One log and who writes it.
struct Log<'a> {
    way: &'a Way,
    path: PathBuf,
    said: PathBuf,
    writer: Process,
}

impl<'a> Log<'a> {
    fn start(stage: &Stage, way: &'a Way) -> Result<Self> {
        let [path, said] =
            [".log", ".said"].map(|end| stage.file(&format!("logs/{}{end}", way.name)));
        let mut command = stage.edge.command("sh");
        command.args(["-c", WRITER, "writer"]).arg(&path).arg(stage.file("stop")).arg(&said);
        let writer = Process::spawn("writer", command.stdin(Stdio::null()))?;
        eventually("the writer writes", LIMIT, || Ok(path.exists()))?;
        Ok(Self { way, path, said, writer })
    }

    fn written(&self) -> Result<Option<u64>> {
        match fs::read_to_string(&self.said) {
            Ok(text) => Ok(Some(text.trim().parse()?)),
            Err(_) => Ok(None),
        }
    }
}

fn settings(logs: &[Log<'_>]) -> String {
    let stanza = |log: &Log<'_>| {
        let settings = log.way.settings.replace("PID", &log.writer.id().to_string());
        format!("{} {{\nmissingok\n{settings}\n}}\n", log.path.display())
    };
    // anybody may read the stage's folder, which logrotate minds
    format!("su root root\n{}", logs.iter().map(stanza).collect::<String>())
}

#[test]
fn every_line_is_counted_once() -> Result<()> {
    if !privilege::ready("a real logrotate") {
        return Ok(());
    }
    let stage = Stage::build()?;
    fs::create_dir(stage.file("logs"))?;
    let jail = |way: &Way| {
        let log = stage.file(&format!("logs/{}.log", way.name));
        format!(
            "[jails.{}]\nfilter = \"door\"\nmaxretry = 1000000000\nlogpath = {log:?}\n",
            way.name
        )
    };
    let filter = "[filters.door]\nfailregex = ['of <ADDR> knocks$']\ndatepattern = ['{NONE}']\n";
    let jails = format!("{filter}{}", WAYS.iter().map(jail).collect::<String>());
    let agent = Agent::start(&stage, &jails)?;
    let logs = WAYS.iter().map(|way| Log::start(&stage, way)).collect::<Result<Vec<_>>>()?;
    let config = stage.write("logrotate.conf", &settings(&logs))?;
    for rotation in 0..ROTATIONS {
        // each rotation meets lines that were not read: none is waited for but those before the last
        for log in &logs {
            let before = agent.lines(log.way.name)?;
            eventually("lines are read", LIMIT, || Ok(agent.lines(log.way.name)? > before))?;
        }
        // another second, another name
        let now = second()?;
        eventually("the clock goes on", LIMIT, || Ok(second()? > now))?;
        let mut logrotate = stage.edge.command("logrotate");
        logrotate.arg("--force").arg("--state").arg(stage.file("logrotate.state")).arg(&config);
        run(&mut logrotate).with_context(|| format!("rotation {rotation}"))?;
    }
    for log in logs.iter().filter(|log| log.way.still) {
        log.writer.signal(Signal::CONT)?;
    }
    stage.write("stop", "")?;
    for log in &logs {
        let name = log.way.name;
        eventually("the writer ends", LIMIT, || Ok(log.written()?.is_some()))?;
        let written = log.written()?.context("it said nothing")?;
        eventually("all lines are read", LIMIT, || Ok(agent.lines(name)? >= written))
            .with_context(|| format!("{name}: {} of {written}", agent.lines(name).unwrap_or(0)))?;
        println!("{name}: {written} lines through {ROTATIONS} rotations");
    }
    // what comes twice would come now
    for log in &logs {
        let (name, written) = (log.way.name, log.written()?.context("it said nothing")?);
        let mut file = fs::File::options().append(true).open(&log.path)?;
        std::io::Write::write_all(&mut file, b"line last of 192.0.2.7 knocks\n")?;
        eventually("the last line is read", LIMIT, || Ok(agent.lines(name)? > written))?;
        let lines = agent.lines(name)?;
        ensure!(lines == written + 1, "{name}: {lines} lines were read of {}", written + 1);
        let found = matched(&agent, name)?;
        ensure!(found == lines, "{name}: {found} of {lines} lines were understood");
    }
    Ok(())
}

fn second() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

/// Lines in which a jail has found a failure.
fn matched(agent: &Agent<'_>, jail: &str) -> Result<u64> {
    let status = agent.json(&["status", jail])?;
    let jails = status.get("jails").and_then(serde_json::Value::as_array).context("no jails")?;
    let found = jails.iter().find(|entry| entry.get("name") == Some(&jail.into()));
    found.and_then(|jail| jail.get("matched")?.as_u64()).context("no matched")
}
