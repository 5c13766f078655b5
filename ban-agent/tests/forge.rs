//! Forged lines against all shipped filters: what the daemons write when a client puts anything into
//! what is his to choose. Each line is written as its daemon would write it, with that daemon's own
//! escaping, by one client; whatever a filter makes of it, it may name that client alone. The same of
//! the samples of each service, with other text in the place of the victim.
//!
//! `cargo xtask forge --lines N --seed S` runs it for long; alone it runs for a moment.

#![expect(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

mod corpora;

use std::{
    env,
    fmt::Write as _,
    net::{IpAddr, Ipv6Addr},
    thread,
    time::Instant,
};

use ban_agent::filter::Outcome;

use corpora::{Kind, Service, made, scanner, services};

/// Who sends everything.
const SENDERS: [&str; 2] = ["203.0.113.66", "2001:db8::66"];
/// Whom he would like to be named; none of them sends anything.
const VICTIMS: [&str; 11] = [
    "198.51.100.66",
    "2001:db8:666::66",
    "8.8.8.8",
    "::ffff:198.51.100.66",
    // other ways to write one of them
    "[::ffff:198.51.100.66]:22",
    "[2001:db8:666::66]:22",
    "2001:db8:666::66%eth0",
    "64:ff9b::198.51.100.66",
    "198.51.100.66.5",
    "0306.063.0144.0102",
    "0xc6336442",
];
/// Stands for bytes that are no UTF-8, where a daemon lets such through.
const NO_UTF8: char = '\u{f8ff}';

/// What forged text is made of: a `V` is a victim.
const PIECES: &[&str] = &[
    "V",
    "V",
    "V",
    " from V",
    " from V port 22",
    " from V port 22 ssh2",
    " V port 22 [preauth]",
    " port 1",
    " ssh2",
    " [preauth]",
    "invalid user ",
    "authenticating user ",
    " for root",
    "Failed password for root from V port 22 ssh2",
    "Nov 21 02:00:00 edge sshd[1]: Failed password for root from V port 22 ssh2",
    "2026-11-21T02:00:00.000000+00:00 edge sshd-session[1]: Invalid user x from V port 1",
    "<86>1 2026-11-21T02:00:00Z edge sshd 1 - - Connection closed by invalid user x V port 1",
    "sshd[1]: ",
    "sshd: ",
    " sshd 1 - - ",
    "edge ",
    "dovecot: ",
    "imap-login: ",
    "haproxy[1]: ",
    "postfix/smtpd[1]: ",
    "nginx: ",
    "apache2: ",
    "error: ",
    "fatal: ",
    "warning: ",
    ": ",
    ", ",
    "message repeated 2 times: [ ",
    "]",
    "[",
    "(",
    ")",
    "<",
    ">",
    "{",
    "}",
    "|",
    "\"",
    "'",
    "\\",
    "/",
    "banner exchange: Connection from V port 1: invalid format",
    "Timeout before authentication for V",
    "Unable to negotiate with V port 1: no matching cipher found",
    "PAM: Authentication failure for root from V",
    "Disconnected (auth failed, 1 attempts in 2 secs): user=<x>, method=PLAIN, rip=V, lip=192.0.2.1, session=<AAAA>",
    ", method=PLAIN",
    ", rip=V",
    ", lip=192.0.2.1",
    ", session=<AAAA>",
    "user=<x>",
    "(auth failed, 1 attempts)",
    "unknown[V]: SASL LOGIN authentication failed: x",
    "warning: x[V]",
    "[V]",
    "[V]: SASL ",
    "(V)",
    "V - - [21/Nov/2026:02:00:00 +0000] \"GET / HTTP/1.1\" 401 0 \"-\" \"-\"",
    "V - bob [21/Nov/2026:02:00:00 +0000] \"GET / HTTP/1.1\" 531 0 ",
    " - - ",
    "\" 401 12 ",
    "\" 531 12 ",
    "[21/Nov/2026:02:00:00 +0000]",
    "[21/Nov/2026:02:00:00.000]",
    " [] \"",
    "HTTP/1.1",
    "V:1 [21/Nov/2026:02:00:00.000] s ceph-dashboard/mon01 0/0/0/0/0 400 1 - - ---- 1/1/0/0/0 0/0 \"POST /api/auth HTTP/1.1\"",
    "V:1 [21/Nov/2026:02:00:00.000] s rgw/a 0/0/0/0/0 403 1 ",
    "ceph-dashboard/mon01",
    "rgw/x",
    " 400 1 ",
    " 403 1 ",
    "[Sat Nov 21 02:00:00.000000 2026] [auth_basic:error] [pid 1:tid 1] [client V:1] AH01617: user bob: authentication failure for \"/\": Password Mismatch",
    "[client V:1] ",
    "[client V] ",
    "AH01618: user x not found: ",
    "[auth_basic:error] ",
    "[error] ",
    "2026/11/21 02:00:00 [error] 1#1: *1 user \"x\": password mismatch, client: V, server: ",
    "Nov 21 02:00:00 Nov 21 02:00:00 edge ",
    "<86>Nov 21 02:00:00 ",
    "2026-11-21T02:00:00Z ",
    "Accepted password for root from V port 22 ssh2",
    "Nasty PTR record \"V\" is set up for V, ignoring",
    "V.from-V.example.org[V]",
    ": user=<>, rip=V, lip=192.0.2.1, session=<AAAA>",
    "SASL PLAIN authentication failed: x, sasl_username=",
    "AH01788: realm mismatch - got `",
    ", X-Forwarded-For: V",
    "\n",
    "\r",
    "\r\n",
    "\0",
    "\t",
    "\u{1b}[31m",
    "\u{7f}",
    "\u{85}",
    "\u{2028}",
    "\u{a0}",
    "\u{663}",
    "%0A",
    "%0D%0A",
    "%22",
    "\\x0A",
    "\\n",
    "#012",
    "#22",
    "%s%n",
    "$",
    "^",
    " ",
    "  ",
    "-",
    "x",
    "root",
    "1",
    "::",
    ":",
    ".",
    "=",
    "é",
    "\u{fffd}",
    "\u{f8ff}",
    "\u{202e}",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
];

/// Numbers out of a seed (splitmix64: Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.next() % end).unwrap_or(0)
    }

    fn pick<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }

    /// Foreign text: pieces, joined, and here and there cut, doubled or with a byte changed.
    fn text(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..=self.below(6) {
            let piece = self.pick(PIECES).replace('V', self.pick(&VICTIMS));
            let (from, to) = match self.below(4) {
                0 => (self.below(piece.len() + 1), piece.len()),
                1 => (0, self.below(piece.len() + 1)),
                _ => (0, piece.len()),
            };
            text.push_str(piece.get(from..to).unwrap_or(&piece));
        }
        if self.below(4) == 0 {
            let at = self.below(text.len() + 1);
            let sign = self.pick(&["\n", " ", "\"", ">", "]", ":", "\0", "1", "\r", ","]);
            if text.is_char_boundary(at) {
                text.insert_str(at, sign);
            }
        }
        if self.below(64) == 0 {
            text = "A".repeat(self.below(9_000)) + &text;
        }
        text
    }
}

/// What a daemon does to foreign text before it writes it.
#[derive(Clone, Copy)]
enum Escaping {
    /// OpenSSH: log.c, do_log: strnvis with VIS_SAFE|VIS_OCTAL, then syslog; `%.100s` of it.
    Sshd,
    /// Dovecot: lib/str-sanitize.c; 80 bytes.
    Dovecot,
    /// Postfix: util/printable.c.
    Postfix,
    /// nginx: ngx_http_log_escape.
    Nginx,
    /// HAProxy: a request by url_encode_map, without blanks as it would end there.
    Request,
    /// HAProxy: a captured header by hdr_encode_map; 60 bytes.
    Header,
    /// Apache: ap_escape_errorlog_item.
    Apache,
    /// Others in the same files: syslog alone.
    Syslog,
}

impl Escaping {
    fn apply(self, text: &str) -> String {
        let parts: Vec<String> = text.split(NO_UTF8).map(|part| self.escape(part)).collect();
        let through = matches!(self, Escaping::Syslog);
        let odd = if through { NO_UTF8.to_string() } else { self.escape("\u{ff}") };
        let mut out = parts.join(&odd);
        let limit = match self {
            Escaping::Sshd => 100,
            Escaping::Dovecot => 80,
            Escaping::Header => 60,
            _ => 4000,
        };
        cut(&mut out, limit);
        out
    }

    fn escape(self, text: &str) -> String {
        let mut out = String::new();
        for byte in text.bytes() {
            let control = byte < 0x20 || byte == 0x7f;
            let sign = char::from(byte);
            let _ = match self {
                Escaping::Sshd | Escaping::Syslog if byte == b'\n' => write!(out, "#012"),
                Escaping::Sshd if sign == '\\' => write!(out, "\\\\"),
                Escaping::Sshd if control || byte >= 0x80 => write!(out, "\\{byte:03o}"),
                Escaping::Dovecot | Escaping::Postfix if control || byte >= 0x80 => {
                    write!(out, "?")
                }
                Escaping::Nginx if control || byte >= 0x7f || sign == '"' || sign == '\\' => {
                    write!(out, "\\x{byte:02X}")
                }
                Escaping::Request if control || byte >= 0x7f || sign == '"' || sign == '#' => {
                    write!(out, "#{byte:02X}")
                }
                Escaping::Request if sign == ' ' => write!(out, "%20"),
                Escaping::Header if control || byte >= 0x7f || "\"#{|}".contains(sign) => {
                    write!(out, "#{byte:02X}")
                }
                Escaping::Apache if byte == b'\n' => write!(out, "\\n"),
                Escaping::Apache if sign == '\\' => write!(out, "\\\\"),
                Escaping::Apache if control || byte >= 0x80 => write!(out, "\\x{byte:02x}"),
                Escaping::Syslog if control => write!(out, "#{byte:03o}"),
                _ => write!(out, "{sign}"),
            };
        }
        out
    }
}

/// Messages with one place or more for foreign text (`@`); `§` is the sender,
/// `¤` a captured header. After the tag, if the
/// daemon logs to syslog, else without one.
const MODELS: &[(&str, Escaping, &[&str])] = &[
    (
        "sshd",
        Escaping::Sshd,
        &[
            "Failed password for invalid user @ from § port 4711 ssh2",
            "Failed password for @ from § port 4711 ssh2",
            "Failed none for invalid user @ from § port 4711 ssh2",
            "Failed keyboard-interactive/pam for invalid user @ from § port 4711 ssh2",
            "Postponed keyboard-interactive for invalid user @ from § port 4711 ssh2 [preauth]",
            "error: PAM: Authentication failure for illegal user @ from §",
            "message repeated 2 times: [ Failed password for invalid user @ from § port 4711 ssh2]",
            "Invalid user @ from § port 4711",
            "User @ from § not allowed because not listed in AllowUsers",
            "User @ not allowed because account is locked",
            "Connection closed by invalid user @ § port 4711 [preauth]",
            "Connection reset by authenticating user @ § port 4711 [preauth]",
            "Disconnected from invalid user @ § port 4711 [preauth]",
            "Disconnecting invalid user @ § port 4711: Change of username or service not allowed: (@,ssh-connection) -> (@,@) [preauth]",
            "Received disconnect from § port 4711:11: @ [preauth]",
            "error: Received disconnect from § port 4711:14: @ [preauth]",
            "error: maximum authentication attempts exceeded for invalid user @ from § port 4711 ssh2 [preauth]",
            "Unable to negotiate with § port 4711: no matching cipher found. Their offer: @ [preauth]",
            "error: kex_exchange_identification: client sent invalid protocol identifier \"@\"",
            "banner exchange: Connection from § port 4711: invalid format",
            "Bad protocol version identification '@' from § port 4711",
            "input_userauth_request: invalid user @ [preauth]",
            "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=§  user=@",
            "reverse mapping checking getaddrinfo for x.example.org [§] failed.",
            "error: Received disconnect from § port 4711:11:  @",
            "Unable to negotiate with § port 4711: no matching key exchange method found. Their offer: @ [preauth]",
            "error: maximum authentication attempts exceeded for @ from § port 4711 ssh2 [preauth]",
            "error: kex_exchange_identification: banner line contains invalid characters",
            "error: Protocol major versions differ: 2 vs. 1",
            "error: Could not get shadow information for NOUSER",
            "Accepted password for @ from § port 4711 ssh2",
        ],
    ),
    (
        "dovecot",
        Escaping::Dovecot,
        &[
            "imap-login: Disconnected: Connection closed (auth failed, 1 attempts in 4 secs): user=<@>, method=PLAIN, rip=§, lip=192.0.2.1, session=<LNDZwcBg55fLAHFC>",
            "imap-login: Disconnected (auth failed, 1 attempts): user=<@>, method=PLAIN, rip=§, lip=192.0.2.1",
            "pop3-login: Login aborted: Connection closed (auth failed, 3 attempts in 12 secs) (auth_failed): user=<@>, method=PLAIN, rip=§, lip=192.0.2.1, TLS, session=<a/b>",
            "imap-login: Disconnected (no auth attempts in 2 secs): user=<>, rip=§, lip=192.0.2.1, session=<a>",
            "imap-login: Login: user=<@>, method=PLAIN, rip=§, lip=192.0.2.1, mpid=1, session=<a>",
            "auth: passwd-file(@,§,<a>): unknown user",
            "auth-worker(12): conn unix:auth-worker (pid=1,uid=1): auth-worker<1>: sql(@,§,<a>): Password mismatch",
            "imap(@)<12><a>: Error: @",
            "imap-login: ID sent: name=@, x-originating-ip=@: user=<>, rip=§, lip=192.0.2.1, session=<a>",
            "auth: plain(?,§,<a>): Username character disallowed by auth_username_chars: 0x20 (username: @)",
            "auth: login(@,§): unknown user",
            "lmtp(12): Info: Connect from local: @",
        ],
    ),
    (
        "postfix/smtpd",
        Escaping::Postfix,
        &[
            "warning: unknown[§]: SASL PLAIN authentication failed: (reason unavailable), sasl_username=@",
            "warning: unknown[§]: SASL LOGIN authentication failed: UGFzc3dvcmQ6, sasl_username=@",
            "improper command pipelining after EHLO from unknown[§]: @",
            "warning: non-SMTP command from unknown[§]: @",
            "warning: Illegal address syntax from unknown[§] in MAIL command: @",
            "NOQUEUE: reject: RCPT from unknown[§]: 554 5.7.1 <@>: Relay access denied; from=<@> to=<@> proto=ESMTP helo=<@>",
            "NOQUEUE: reject: EHLO from unknown[§]: 501 5.5.2 <@>: Helo command rejected: Invalid name; proto=SMTP helo=<@>",
            "lost connection after AUTH from unknown[§]",
            "warning: hostname x.example.org does not resolve to address §",
            "warning: 198.51.100.66.example.org[§]: SASL LOGIN authentication failed: UGFzc3dvcmQ6, sasl_username=@",
            "warning: Illegal address syntax from 198.51.100.66.example.org[§] in VRFY command: @",
            "improper command pipelining after CONNECT from unknown[§]: EHLO @",
            "NOQUEUE: reject: MAIL from unknown[§]: 504 5.5.2 <@>: Sender address rejected: need fully-qualified address; from=<@> proto=ESMTP helo=<@>",
            "ABCDEF: client=unknown[§], sasl_method=PLAIN, sasl_username=@",
        ],
    ),
    (
        "sudo",
        Escaping::Syslog,
        &["@ : user NOT in sudoers ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=@"],
    ),
    (
        "su",
        Escaping::Syslog,
        &["FAILED SU (to root) @ on pts/0", "pam_unix(su:auth): conversation failed: @"],
    ),
    (
        "login",
        Escaping::Syslog,
        &["FAILED LOGIN (1) on '/dev/tty1' FOR '@', Authentication failure"],
    ),
    (
        "dropbear",
        Escaping::Syslog,
        &[
            "Bad password attempt for '@' from §:4711",
            "Login attempt for nonexistent user from §:1",
        ],
    ),
    (
        "vsftpd",
        Escaping::Syslog,
        &["[@] FAIL LOGIN: Client \"§\"", "pam_unix(vsftpd:auth): check pass; user unknown @"],
    ),
    (
        "haproxy",
        Escaping::Request,
        &[
            "§:4711 [21/Nov/2026:03:14:15.135] fe ceph-dashboard/mon01 0/0/0/0/0 400 312 - - ---- 1/1/0/0/0 0/0 \"POST /api/auth?@ HTTP/1.1\"",
            "§:4711 [21/Nov/2026:03:14:15.135] fe ceph-dashboard/mon01 0/0/0/0/0 400 312 - - ---- 1/1/0/0/0 0/0 {¤|¤} \"POST /@/api/auth HTTP/1.1\"",
            "§:4711 [21/Nov/2026:03:14:15.135] fe ceph-dashboard/mon01 0/0/0/0/0 401 312 - - ---- 1/1/0/0/0 0/0 {¤} \"GET /@ HTTP/1.1\"",
            "§:4711 [21/Nov/2026:03:14:15.135] s3 ceph-rgw/rgw01 0/0/0/0/0 403 312 - - ---- 1/1/0/0/0 0/0 {¤|} {¤} \"@ /@ HTTP/1.1\"",
            "§:4711 [21/Nov/2026:03:14:15.135] s3 ceph-rgw/rgw01 0/0/0/0/0 200 312 ¤ ¤ ---- 1/1/0/0/0 0/0 \"GET /@ HTTP/1.1\"",
            "§:4711 [21/Nov/2026:03:14:15.135] fe fe/<NOSRV> -1/-1/-1/-1/0 400 0 - - PR-- 1/1/0/0/0 0/0 \"<BADREQ>\"",
            "§:4711 [21/Nov/2026:03:14:15.135] fe~/1: SSL handshake failure",
        ],
    ),
    (
        "",
        Escaping::Nginx,
        &[
            "§ - @ [21/Nov/2026:03:14:14 +0000] \"GET /@ HTTP/1.1\" 401 35 \"@\" \"@\"",
            "§ - - [21/Nov/2026:03:14:14 +0000] \"@\" 401 35 \"@\" \"@\"",
            "§ - @ [21/Nov/2026:03:14:14 +0000] \"GET /@\" 531 35 \"-\" \"@\"",
            "§ - - [21/Nov/2026:03:14:14 +0000] \"@\" 400 35 \"@\" \"@\"",
            "§ - @ [21/Nov/2026:03:14:14 +0000] \"GET / HTTP/1.1\" 200 35 \"@\" \"@\"",
        ],
    ),
    (
        "",
        Escaping::Apache,
        &[
            "[Sat Nov 21 03:14:15.091476 2026] [auth_basic:error] [pid 94:tid 126] [client §:35754] AH01618: user @ not found: /@, referer: @",
            "[Sat Nov 21 03:14:15.091476 2026] [auth_basic:error] [pid 94:tid 126] [client §:35754] AH01617: user @: authentication failure for \"/@\": Password Mismatch, referer: @",
            "[Sat Nov 21 03:14:15.091476 2026] [auth_digest:error] [pid 94:tid 126] [client §:1] AH01790: user `@' in realm `staff' not found: /@",
            "[Sat Nov 21 03:14:15.091476 2026] [core:error] [pid 94:tid 126] [client §:1] AH00126: Invalid URI in request @",
            "[Sat Nov 21 03:14:15.091476 2026] [core:error] [pid 94:tid 126] (36)File name too long: [client §:1] AH00036: access to /@ failed (filesystem path '/srv/@'), referer: @",
            "[Sat Nov 21 03:14:15.091476 2026] [cgi:error] [pid 94:tid 126] [client §:1] AH01215: @: /srv/x.cgi, referer: @",
            "[Sat Nov 21 03:14:15.091476 2026] [auth_digest:error] [pid 94:tid 126] [client §:1] AH01788: realm mismatch - got `@' but expected `staff'",
            "[Sat Nov 21 03:14:15.091476 2026] [auth_digest:error] [pid 94:tid 126] [client §:1] AH01786: uri mismatch - <@> does not match request-uri </@>, referer: @",
            "[Sat Nov 21 03:14:15.091476 2026] [core:error] [pid 94:tid 126] [client §:1] AH10244: invalid URI path (/@)",
            "[Sat Nov 21 03:14:15 2026] [error] [client §] user @: authentication failure for \"/@\": Password Mismatch, referer: @",
            "[Sat Nov 21 03:14:15 2026] [error] [client §] File does not exist: /srv/@, referer: @",
        ],
    ),
];

/// Heads of a line in a file, in the journal, and last none as in a container; `#` is the tag.
const HEADS: &[(&str, bool)] = &[
    ("Nov 21 03:14:15 edge #[4711]: ", false),
    ("Nov 21 03:14:15 edge #: ", false),
    ("2026-11-21T03:14:15.705407+00:00 edge #[4711]: ", false),
    ("<86>Nov 21 03:14:15 edge #[4711]: ", false),
    ("<86>1 2026-11-21T03:14:15.705407+00:00 edge # 4711 - - ", false),
    ("2026-11-21T03:14:15Z edge #[4711]: ", true),
    ("2026-11-21T03:14:15Z ", true),
];

/// One line, as a daemon writes it or a relay.
struct Forged {
    line: String,
    /// Its time stands in front of it already.
    stamped: bool,
    sender: &'static str,
    /// Written by the relay of syslog, which writes the others of its file as well.
    relayed: bool,
}

fn forge(random: &mut Random) -> Forged {
    let sender = random.pick(&SENDERS);
    let (tag, escaping, messages) = MODELS[random.below(MODELS.len())];
    let message = messages[random.below(messages.len())];
    let mut body = String::new();
    for sign in message.chars() {
        match sign {
            '§' => body.push_str(sender),
            '@' => body.push_str(&escaping.apply(&random.text())),
            '¤' => body.push_str(&Escaping::Header.apply(&random.text())),
            other => body.push(other),
        }
    }
    if tag.is_empty() {
        return Forged { line: body, stamped: false, sender, relayed: false };
    }
    // what else stands in a file of syslog's is not in a container's output
    let alone = ["sshd", "dovecot", "haproxy"].contains(&tag);
    let (head, stamped) = HEADS[random.below(HEADS.len() - usize::from(!alone))];
    let mut line = head.replace('#', tag) + &body;
    // HAProxy cuts its lines
    if tag == "haproxy" && random.below(4) == 0 {
        let end = 100 + random.below(900);
        cut(&mut line, end);
    }
    // and so do relays of syslog (RFC 3164, section 4.1; rsyslog's maxMessageSize)
    if random.below(2) == 0 {
        cut(&mut line, [1024, 2048, 8192][random.below(3)]);
    }
    Forged { line, stamped, sender, relayed: !stamped }
}

fn cut(line: &mut String, end: usize) {
    line.truncate(line.char_indices().nth(end).map_or(line.len(), |(at, _)| at));
}

/// The line as a file holds it.
fn bytes(line: &str) -> Vec<u8> {
    let parts: Vec<&[u8]> = line.split(NO_UTF8).map(str::as_bytes).collect();
    parts.join(&[0xff, 0xc0, 0xaf][..])
}

/// Whom a jail bans for an address: of IPv6 the /64, by default.
fn holder(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) => Ipv6Addr::from_bits(six.to_bits() >> 64 << 64).into(),
        four @ IpAddr::V4(_) => four,
    }
}

fn number(name: &str, otherwise: usize) -> usize {
    env::var(name).map_or(otherwise, |text| text.parse().expect(name))
}

/// A sample of the service's own, its victim replaced by other text that any daemon lets through;
/// and who sent it, if the line is expected to be a failure.
fn sample<'a>(random: &mut Random, (line, sender): &Sample<'a>) -> Sample<'a> {
    let mut out = String::new();
    for (at, part) in line.split(VICTIMS[0]).enumerate() {
        if at > 0 {
            // in the midst of a host name there is what resolvers let through
            let after = part.strip_prefix(['.', '-']).unwrap_or_default();
            let named = after.starts_with(|sign: char| sign.is_ascii_alphanumeric());
            // and at the front of a line only a name of a server, in which no daemon lets a blank stand
            let signs = match (named, out.is_empty()) {
                (true, _) => ".-",
                (false, true) => ".:-",
                (false, false) => " .:-",
            };
            let mild = |sign: &char| sign.is_ascii_alphanumeric() || signs.contains(*sign);
            let victim = random.pick(&VICTIMS).chars().filter(|sign| !named || mild(sign));
            let victim: String = victim.collect();
            out.extend(random.text().chars().filter(mild));
            out.push_str(&victim);
            out.extend(random.text().chars().filter(mild));
        }
        out.push_str(part);
    }
    (out, *sender)
}

type Sample<'a> = (String, Option<&'a str>);

/// The sample lines of a filter's service.
fn samples(service: &'static Service, filter: &str) -> Vec<Sample<'static>> {
    let logs = service.logs.iter().filter(|log| log.kind() != Kind::Normal);
    let lines = logs.flat_map(|log| log.lines()).map(|(line, told)| {
        let sender = told.iter().find(|(name, _)| *name == filter).map(|(_, address)| *address);
        (String::from_utf8_lossy(line).trim_end().to_owned(), sender)
    });
    lines.collect()
}

#[test]
fn forged_lines_name_nobody_but_their_sender() {
    let chosen = env::var("FORGE_FILTERS").unwrap_or_default();
    let filters: Vec<(&'static Service, &String)> = services()
        .iter()
        .flat_map(|service| service.filters.iter().map(move |filter| (service, filter)))
        .filter(|(_, filter)| chosen.is_empty() || chosen.split(',').any(|name| name == *filter))
        .collect();
    assert!(!filters.is_empty(), "no filter is named {chosen}");
    // under a debugger's build a line costs a hundred times as much; all filters share this much
    let lines = number("FORGE_LINES", 40_000 / filters.len());
    let seed = u64::try_from(number("FORGE_SEED", 1)).expect("a seed");
    let now = made();
    let work = |part: &[(&'static Service, &String)]| {
        for (service, name) in part {
            let began = Instant::now();
            let (mut random, mut matched) = (Random(seed), 0_u64);
            let mut scanner = scanner(name);
            let own = samples(service, name);
            // the line before, if its end was lost; only the relay's lines have others behind them
            let mut joined: Option<(String, &str)> = None;
            for at in 0..lines {
                let (line, stamped, senders) = if at % 2 == 0 {
                    let (line, sender) = sample(&mut random, &own[at / 2 % own.len()]);
                    (line, false, sender.map(|sender| [sender, sender]))
                } else {
                    let Forged { line, stamped, sender, relayed } = forge(&mut random);
                    let before = joined.take();
                    if relayed && at % 32 == 31 {
                        joined = Some((line, sender));
                        continue;
                    }
                    match before {
                        Some((before, other)) if relayed => {
                            (before + &line, stamped, Some([sender, other]))
                        }
                        _ => (line, stamped, Some([sender, sender])),
                    }
                };
                // a line feed that its daemon lets through would be the end of a line
                for line in line.split('\n') {
                    let line = bytes(line);
                    let Outcome::Matched(failure) = scanner.line(&line, stamped, now) else {
                        continue;
                    };
                    matched += 1;
                    let named = failure.address.map(holder);
                    let is = |address: &str| named == address.parse().ok().map(holder);
                    let right = match senders {
                        Some(senders) => senders.into_iter().any(is),
                        None => !VICTIMS.into_iter().any(is),
                    };
                    assert!(
                        right,
                        "{name}, seed {seed}: {named:?} is named, {senders:?} sent this:\n{}",
                        line.escape_ascii()
                    );
                }
            }
            let (of, took) = (&service.name, began.elapsed());
            println!("{name} of {of}: {lines} lines, {matched} failures, {took:?}");
            assert!(matched > 0 || lines / 2 < own.len(), "{name} finds nothing of what is there");
        }
    };
    thread::scope(|scope| {
        for part in filters.chunks(filters.len().div_ceil(2)) {
            scope.spawn(move || work(part));
        }
    });
}
