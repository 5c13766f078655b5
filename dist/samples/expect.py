#!/usr/bin/python3
"""Writes down what each line of the sample logs means, from the daemons' formats and not from our
filters: plain cutting of strings, no pattern of theirs. Knows who sent what only from the line.

usage: expect.py DIRECTORY
"""
import datetime
import pathlib
import sys

MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def syslog(line):
    """Time, tag and message of a line in rsyslog's traditional or ISO format."""
    if line[0].isdigit():
        stamp, _, rest = line.split(" ", 2)
        time = datetime.datetime.fromisoformat(stamp).astimezone(datetime.timezone.utc)
    else:
        clock, _, rest = line[7:].split(" ", 2)
        month, day = line[:3], line[4:6]
        hour, minute, second = map(int, clock.split(":"))
        year = datetime.date.today().year
        time = datetime.datetime(year, MONTHS.index(month) + 1, int(day), hour, minute, second)
    tag, message = rest.split(": ", 1)
    return time, tag.split("[")[0], message


def shown(time):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def last_from(text, word=" from "):
    """What stands before the last `from ADDRESS`, and the address."""
    user, address = text.rsplit(word, 1)
    return user, address.split(" ")[0]


def sshd(line):
    time, tag, text = syslog(line)
    if tag not in ("sshd", "sshd-session"):
        return
    text = text.removeprefix("error: ")
    body = text.removesuffix(" ssh2")
    for start in ("Failed password for invalid user ", "Failed password for ",
                  "Failed keyboard-interactive/pam for invalid user ", "Invalid user "):
        if body.startswith(start):
            user, address = last_from(body[len(start):])
            yield "sshd", address, time, user
            return
    if text.startswith("PAM: Authentication failure for ") and " illegal user " not in text[:50]:
        user, address = last_from(text.split(" for ", 1)[1])
        yield "sshd", address, time, user
    if text.startswith("User ") and " not allowed because listed in DenyUsers" in text:
        user, address = last_from(text[5:].rsplit(" not allowed", 1)[0])
        yield "sshd", address, time, user


def sshd_preauth(line):
    time, tag, text = syslog(line)
    if tag not in ("sshd", "sshd-session"):
        return
    text = text.removesuffix(" [preauth]").removeprefix("error: ").removeprefix("fatal: ")
    for start in ("Connection closed by ", "Connection reset by ", "Disconnected from "):
        for kind in ("authenticating user ", "invalid user "):
            if text.startswith(start + kind):
                user, address = text[len(start + kind):].rsplit(" port ", 1)[0].rsplit(" ", 1)
                yield "sshd-preauth", address, time, user
    if text.startswith("maximum authentication attempts exceeded for "):
        user, address = last_from(text.split(" for ", 1)[1])
        yield "sshd-preauth", address, time, user.removeprefix("invalid user ")
    for start in ("Unable to negotiate with ", "banner exchange: Connection from ",
                  "Timeout before authentication for ",
                  "Timeout before authentication for connection from "):
        rest = text.removeprefix(start)
        if rest != text and not rest.startswith("connection "):
            yield "sshd-preauth", rest.split(" ")[0], time, None


def access(line):
    """nginx, combined: all before the first quote is the address, the user and the time."""
    if '"' not in line or " - " not in line.split('"')[0]:
        return None
    before, request, after = line.split('"', 2)
    address, _, rest = before.split(" ", 2)
    user, stamp = rest.rstrip().rsplit(" [", 1)
    time = datetime.datetime.strptime(stamp.rstrip("]"), "%d/%b/%Y:%H:%M:%S %z")
    return address, user, time.astimezone(datetime.timezone.utc), after.split()[0]


def cloudstack(line):
    found = access(line)
    if found and found[3] in ("401", "531"):
        yield "nginx-" + found[3], found[0], found[2], found[1]


def nginx_http_auth(line):
    found = access(line)
    if found and found[3] == "401" and found[1] != "-":
        yield "nginx-http-auth", found[0], found[2], found[1]


def apache_http_auth(line):
    """Apache, combined: all before the first quote that has no backslash is address, user and time."""
    at = 0
    while line[at:at + 1] not in ("", '"'):
        at += 2 if line[at] == "\\" else 1
    address, _, rest = line[:at].split(" ", 2)
    user, stamp = rest.rstrip().rsplit(" [", 1)
    end = at + 1
    while line[end:end + 1] not in ("", '"'):
        end += 2 if line[end] == "\\" else 1
    time = datetime.datetime.strptime(stamp.rstrip("]"), "%d/%b/%Y:%H:%M:%S %z")
    if line[end + 1:].split()[0] == "401" and user != "-":
        yield "apache-http-auth", address, time.astimezone(datetime.timezone.utc), user


def ceph(line):
    time, tag, text = syslog(line)
    words = text.split(" ")
    if tag != "haproxy" or len(words) < 7 or not words[5].lstrip("-").isdigit():
        return
    address, backend, status = words[0].rsplit(":", 1)[0], words[3].split("/")[0], words[5]
    request = text.split('"', 1)[1] if '"' in text else ""
    if "rgw" in backend and status in ("401", "403"):
        yield "ceph-rgw", address, time, None
    if "dashboard" in backend and status == "400" and "<NOSRV>" not in words[3]:
        path = request.split(" ")[1].split("?")[0] if " " in request else ""
        path = path.replace("%61", "a").rstrip('"').rstrip("/")
        cut = not request.endswith('"')
        if cut or request.startswith("POST ") and path.endswith("/api/auth"):
            yield "ceph-dashboard", address, time, None


def haproxy(line):
    time, tag, text = syslog(line)
    words = text.split(" ")
    if tag == "haproxy" and len(words) > 9 and words[3].endswith("/<NOSRV>") and words[9][:2] in ("PR", "PT"):
        yield "haproxy-denied", words[0].rsplit(":", 1)[0], time, None


def beast(line):
    stamp, _, rest = line.partition(" ")
    if " beast: " not in rest:
        return
    time = datetime.datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S.%f%z")
    words = rest.split(" beast: ", 1)[1].split(" ")
    request = rest.split('"', 1)[1]
    path, status = request.split(" ")[1], request.split(' HTTP/1.1" ', 1)[1].split(" ")[0]
    swift = path.startswith("/auth") and status == "401"
    if words[2:4] == ["-", "-"] and (status == "403" or swift):
        yield "ceph-rgw-log", words[1], time.astimezone(datetime.timezone.utc), None


def apache(line):
    if not line.startswith("["):
        return
    stamp, rest = line[1:].split("] ", 1)
    time = datetime.datetime.strptime(stamp, "%a %b %d %H:%M:%S.%f %Y")
    parts = rest.split("] ", 3)
    if len(parts) < 3 or not parts[2].startswith("[client "):
        return
    address, text = parts[2][8:].rsplit(":", 1)[0], parts[3] if len(parts) > 3 else ""
    if text.startswith(("AH01617: user ", "AH01618: user ")):
        user = text[14:]
        ends = [user.find(": authentication failure for \""), user.find(" not found: ")]
        yield "apache-auth", address, time, user[: min(end for end in ends if end >= 0)]
    elif text.startswith(("AH01790: user ", "AH01794: user ")):
        yield "apache-auth", address, time, None


def dovecot(line):
    time, tag, text = syslog(line)
    service, _, rest = text.partition(": ")
    if tag != "dovecot" or not service.endswith("-login") or rest.startswith("ID sent: "):
        return
    if any(word in text.split("user=<")[0] for word in ("(auth failed, ", "(tried to use ")):
        user, rest = text.split(": user=<", 1)[1].rsplit(", rip=", 1)
        user = user.rsplit(">", 1)[0]
        yield "dovecot", rest.split(",")[0], time, user


def dovecot_auth(line):
    """With auth_verbose: `auth: DRIVER(USER,ADDRESS,<SESSION>): TEXT`; Postfix's have no session."""
    time, tag, text = syslog(line)
    if tag == "dovecot" and text.startswith("auth: passwd-file("):
        who, _, what = text.partition("(")[2].rpartition("): ")
        if what in ("unknown user", "Password mismatch"):
            parts = who.split(",")
            if parts[-1].startswith("<"):
                parts.pop()
            address = parts.pop()
            yield "dovecot-auth", address, time, ",".join(parts)


def postfix(line):
    time, tag, text = syslog(line)
    if tag.startswith("postfix/") and tag.endswith("/smtpd") and text.startswith("warning: "):
        client, _, rest = text[9:].partition("]: SASL ")
        if " " not in client and rest.split(" ", 1)[1:] and rest.split(" ", 1)[1].startswith("authentication failed: "):
            yield "postfix-sasl", client.split("[")[1], time, None
    if tag.endswith("/smtpd") and text.startswith(POSTFIX_ABUSE):
        yield "postfix-abuse", text.split("[")[1].split("]")[0], time, None


POSTFIX_ABUSE = ("lost connection after AUTH from ", "improper command pipelining after ",
                 "too many errors after ", "warning: non-SMTP command from ")

MEANING = {
    "ssh/sshd": [sshd, sshd_preauth],
    "ssh/sshd.iso": [sshd, sshd_preauth],
    "platform/cloudstack": [cloudstack],
    "web/nginx": [nginx_http_auth],
    "platform/ceph": [ceph],
    "platform/ceph.beast": [beast],
    "web/apache": [apache],
    "web/nginx.tls": [nginx_http_auth],
    "web/apache.access": [apache_http_auth],
    "web/apache.cgi": [apache],
    "proxy/haproxy.tls": [haproxy],
    "mail/dovecot": [dovecot, dovecot_auth],
    "mail/dovecot.sieve": [dovecot, dovecot_auth],
    "mail/postfix": [postfix],
    "mail/postfix.tls": [postfix],
}


def main():
    folder = pathlib.Path(sys.argv[1])
    for name, rules in MEANING.items():
        for kind in ("", ".inject"):
            log = folder / f"{name}{kind}.log"
            if not log.exists():
                continue
            said = []
            text = log.read_bytes().decode("utf-8", "replace")
            for number, line in enumerate(text.split("\n"), 1):
                if not line:
                    continue
                for rule in rules:
                    for jail, address, time, user in rule(line) or ():
                        told = f"{number} {jail} {address} {shown(time)}"
                        said.append(told if user is None else f"{told} {user}")
            (folder / f"{name}{kind}.expect").write_text("".join(f"{told}\n" for told in said))


main()
