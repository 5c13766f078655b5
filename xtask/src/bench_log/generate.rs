//! Generates logs to measure with: the same lines in every run, one in a hundred an offence.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};

/// One line in this many is an offence.
const OFFENCE: u64 = 100;

/// A kind of log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// `auth.log` of a host with an sshd, cron and sudo.
    Sshd,
    /// nginx's access log in the format `combined`.
    Access,
    /// nginx's error log.
    Error,
    /// Caddy's access log, JSON.
    Caddy,
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }

    fn one_of<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        let index = usize::try_from(self.next(texts.len() as u64)).unwrap_or(0);
        texts.get(index).copied().unwrap_or_default()
    }

    /// An address of the documentation and test ranges.
    fn address(&mut self) -> String {
        if self.next(8) == 0 {
            return format!(
                "2001:db8:{:x}:{:x}::{:x}",
                self.next(4096),
                self.next(65536),
                self.next(65536)
            );
        }
        format!("198.{}.{}.{}", 18 + self.next(2), self.next(256), self.next(256))
    }
}

/// Writes `lines` lines to `path`; returns how many are offences.
pub(crate) fn write(kind: Kind, path: &Path, lines: u64, seed: u64) -> Result<u64> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let mut dice = Dice(seed);
    let mut offences = 0;
    for index in 0..lines {
        let bad = dice.next(OFFENCE) == 0;
        offences += u64::from(bad);
        // A day's worth of seconds, evenly.
        let second = index * 86_000 / lines.max(1);
        let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
        let clock = format!("{h:02}:{m:02}:{s:02}");
        let line = match kind {
            Kind::Sshd => sshd(&mut dice, index, &clock, bad),
            Kind::Access => access(&mut dice, &clock, bad),
            Kind::Error => error(&mut dice, &clock, bad),
            Kind::Caddy => caddy(&mut dice, second, bad),
        };
        writeln!(out, "{line}").with_context(|| format!("cannot write {}", path.display()))?;
    }
    out.flush().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(offences)
}

fn sshd(dice: &mut Dice, index: u64, clock: &str, bad: bool) -> String {
    // No two sessions share a number within the log.
    let pid = 1000 + index;
    let port = 1024 + dice.next(60_000);
    let user = dice.one_of(&["deploy", "alice", "bob", "backup", "ansible"]);
    let text = if bad {
        let user = dice.one_of(&["root", "invalid user admin", "invalid user test", "oracle"]);
        format!("sshd[{pid}]: Failed password for {user} from {} port {port} ssh2", dice.address())
    } else {
        let uid = 1000 + dice.next(20);
        match dice.next(100) {
            0..15 => format!(
                "CRON[{pid}]: pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)"
            ),
            15..30 => format!("CRON[{pid}]: pam_unix(cron:session): session closed for user root"),
            30..42 => format!(
                "sshd[{pid}]: pam_unix(sshd:session): session opened for user {user}(uid={uid}) by (uid=0)"
            ),
            42..54 => {
                format!("sshd[{pid}]: pam_unix(sshd:session): session closed for user {user}")
            }
            54..66 => format!("systemd-logind[612]: New session {port} of user {user}."),
            66..74 => format!("systemd-logind[612]: Removed session {port}."),
            74..86 => format!(
                "sudo:   {user} : TTY=pts/0 ; PWD=/home/{user} ; USER=root ; COMMAND=/usr/bin/systemctl status nginx"
            ),
            86..94 => format!(
                "sudo: pam_unix(sudo:session): session opened for user root(uid=0) by {user}(uid={uid})"
            ),
            94..97 => format!(
                "sshd[{pid}]: Accepted publickey for {user} from {} port {port} ssh2: ED25519 SHA256:x{pid}y{port}",
                dice.address()
            ),
            _ => {
                format!("sshd[{pid}]: Disconnected from user {user} {} port {port}", dice.address())
            }
        }
    };
    format!("Nov 20 {clock} edge {text}")
}

fn access(dice: &mut Dice, clock: &str, bad: bool) -> String {
    let agent = dice.one_of(&[
        "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
        "python-requests/2.31.0",
        "CloudStack-Java-Client/1.0",
    ]);
    let path = dice.one_of(&[
        "/client/api?command=listVirtualMachines&response=json&sessionkey=",
        "/client/api?command=queryAsyncJobResult&response=json&jobid=",
        "/client/static/js/app.js?v=",
        "/client/config.json?id=",
        "/favicon.ico?",
    ]);
    let (request, status) = if bad {
        ("POST /client/api?command=login".to_owned(), "401")
    } else {
        let status = dice.one_of(&["200", "200", "200", "200", "200", "304", "302", "404", "206"]);
        (format!("GET {path}{:08x}", dice.next(u64::from(u32::MAX))), status)
    };
    let size = 100 + dice.next(40_000);
    let address = dice.address();
    format!(
        "{address} - - [20/Nov/2026:{clock} +0000] \"{request} HTTP/1.1\" {status} {size} \"-\" \"{agent}\""
    )
}

fn caddy(dice: &mut Dice, second: u64, bad: bool) -> String {
    let address = dice.address();
    let (port, size, number) = (1024 + dice.next(60_000), dice.next(90_000), dice.next(1 << 32));
    let agent = dice.one_of(&[
        "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
        "curl/7.88.1",
    ]);
    let (password, status) = if bad {
        (r#","Authorization":["REDACTED"]"#, "401")
    } else {
        ("", dice.one_of(&["200", "200", "200", "304", "302", "404", "206"]))
    };
    format!(
        r#"{{"level":"info","ts":{}.{:06},"logger":"http.log.access.log0","msg":"handled request","request":{{"remote_ip":"{address}","remote_port":"{port}","client_ip":"{address}","proto":"HTTP/2.0","method":"GET","host":"app.example.org","uri":"/static/{number:08x}.js","headers":{{"User-Agent":["{agent}"],"Accept":["*/*"],"Accept-Encoding":["gzip, deflate, br"],"Accept-Language":["en-GB,en;q=0.5"]{password}}},"tls":{{"resumed":false,"version":772,"cipher_suite":4865,"proto":"h2","server_name":"app.example.org"}}}},"bytes_read":0,"user_id":"","duration":0.00{number},"size":{size},"status":{status},"resp_headers":{{"Server":["Caddy"],"Content-Type":["text/javascript"],"Etag":["\"{number:x}\""]}}}}"#,
        1_795_132_800 + second,
        number % 1_000_000,
    )
}

fn error(dice: &mut Dice, clock: &str, bad: bool) -> String {
    let (worker, connection) = (700 + dice.next(8), dice.next(10_000_000));
    let address = dice.address();
    let tail = format!(
        "client: {address}, server: api.example.org, request: \"GET /client/ HTTP/1.1\", host: \"api.example.org\""
    );
    let text = if bad {
        format!(
            "[error] {worker}#{worker}: *{connection} user \"admin\": password mismatch, {tail}"
        )
    } else {
        match dice.next(4) {
            0 => format!(
                "[error] {worker}#{worker}: *{connection} open() \"/srv/www/x{connection}\" failed (2: No such file or directory), {tail}"
            ),
            1 => format!(
                "[error] {worker}#{worker}: *{connection} upstream timed out (110: Connection timed out) while reading response header from upstream, {tail}"
            ),
            2 => format!(
                "[warn] {worker}#{worker}: *{connection} an upstream response is buffered to a temporary file /var/lib/nginx/proxy/1/00/0000000001 while reading upstream, {tail}"
            ),
            _ => format!(
                "[info] {worker}#{worker}: *{connection} client {address} closed keepalive connection"
            ),
        }
    };
    format!("2026/11/20 {clock} {text}")
}
