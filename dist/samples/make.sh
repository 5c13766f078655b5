#!/bin/bash
# Makes the sample logs of this directory: starts the real daemons in namespaces of their own (no
# network but a loopback that owns the documentation addresses), lets real clients fail there, and
# keeps what rsyslog and the daemons wrote. Needs root and the Debian packages named in README.md.
# Everything it started dies with its process namespace.
#
# usage: make.sh [DIRECTORY]     (default: the directory of this script)
set -Eeuo pipefail
. "$(dirname "$0")/scene.sh"

# --- the daemons ----------------------------------------------------------------------------
ssh-keygen -q -t ed25519 -N '' -f hostkey
ssh-keygen -q -t ed25519 -N '' -f userkey
install -m 644 userkey.pub authorized
cat >sshd.conf <<EOF
HostKey $work/hostkey
PidFile none
PermitRootLogin yes
StrictModes no
AuthorizedKeysFile $work/authorized
UsePAM no
DenyUsers daemon
MaxStartups 100
EOF
sed 's/UsePAM no/UsePAM yes/; $a PasswordAuthentication no\nKbdInteractiveAuthentication yes' \
    sshd.conf >sshd-pam.conf
sed 's/UsePAM no/&\nPasswordAuthentication no\nLoginGraceTime 4/' sshd.conf >sshd-keys.conf
{ cat sshd.conf && echo UseDNS yes; } >sshd-dns.conf
/usr/sbin/sshd -D -p 2222 -f sshd.conf &
/usr/sbin/sshd -D -p 2225 -f sshd-dns.conf &
/usr/sbin/sshd -D -p 2224 -f sshd-keys.conf &
/usr/sbin/sshd -D -p 2223 -f sshd-pam.conf &

printf 'bob:%s\n' "$(openssl passwd -apr1 secret)" >htpasswd
printf 'bob:staff:%s\n' "$(printf 'bob:staff:secret' | md5sum | cut -d' ' -f1)" >htdigest
cat >nginx.conf <<EOF
user root;
daemon off;
pid $work/nginx.pid;
error_log $work/nginx-error.log error;
events {}
http {
    log_format combined_v6 '\$remote_addr - \$remote_user [\$time_local] "\$request" \$status \$body_bytes_sent "\$http_referer" "\$http_user_agent"';
    server {
        listen $server:8080; listen [$server6]:8080;
        access_log $work/cloudstack.log combined;
        location /client/api {
            if (\$arg_response = json) { return 401 '{"loginresponse":{"errorcode":401}}'; }
            if (\$arg_response = xml) { return 531 '<loginresponse/>'; }
            return 200 '{"ok":1}';
        }
        location / { return 404; }
    }
    server {
        # behind a proxy that is trusted
        listen $server:8083;
        access_log $work/cloudstack.log combined;
        set_real_ip_from $two;
        real_ip_header X-Forwarded-For;
        location / { return 401; }
    }
    server {
        listen $server:8081; listen [$server6]:8081;
        access_log $work/nginx-http-auth.log combined;
        location / { auth_basic staff; auth_basic_user_file $work/htpasswd; root $work/www; }
        location /files { root $work/www; }
    }
}
EOF
mkdir www && echo hello >www/index.html
nginx -c "$work/nginx.conf" -e "$work/nginx-start.log" &

cat >apache.conf <<EOF
ServerRoot $work
ServerName edge
PidFile $work/apache.pid
Mutex file:$work
ErrorLog $work/apache-auth.log
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authn_core_module /usr/lib/apache2/modules/mod_authn_core.so
LoadModule authn_file_module /usr/lib/apache2/modules/mod_authn_file.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule authz_user_module /usr/lib/apache2/modules/mod_authz_user.so
LoadModule auth_basic_module /usr/lib/apache2/modules/mod_auth_basic.so
LoadModule auth_digest_module /usr/lib/apache2/modules/mod_auth_digest.so
Listen $server:8082
Listen [$server6]:8082
DocumentRoot $work/www
User www-data
Group www-data
<Location "/">
    AuthType Basic
    AuthName staff
    AuthUserFile $work/htpasswd
    Require valid-user
</Location>
<Location "/digest">
    AuthType Digest
    AuthName staff
    AuthUserFile $work/htdigest
    Require valid-user
</Location>
EOF
chmod 644 htpasswd htdigest
/usr/sbin/apache2 -D FOREGROUND -f "$work/apache.conf" &

mkdir -p spool/private postfix data dovecot mail
printf 'bob:{PLAIN}secret:65534:65534::%s/mail::\n' "$work" >passwd
cat >dovecot.conf <<EOF
protocols = imap pop3
base_dir = $work/dovecot
listen = $server, $server6
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_verbose = yes
imap_id_log = *
mail_location = maildir:$work/mail
passdb {
  driver = passwd-file
  args = $work/passwd
}
userdb {
  driver = passwd-file
  args = $work/passwd
}
# no delay for those who failed before
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service auth {
  unix_listener $work/spool/private/auth {
    mode = 0666
  }
}
service imap-login {
  inet_listener imap {
    port = 1143
  }
  inet_listener imaps {
    port = 0
  }
}
service pop3-login {
  inet_listener pop3 {
    port = 1110
  }
  inet_listener pop3s {
    port = 0
  }
}
EOF
dovecot -F -c "$work/dovecot.conf" 2>dovecot.err &
cat >postfix/main.cf <<EOF
compatibility_level = 3.6
queue_directory = $work/spool
data_directory = $work/data
myhostname = edge.example.org
inet_interfaces = $server, $server6
mydestination =
alias_maps =
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/auth
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_peername_lookup = no
smtpd_client_auth_rate_limit = 0
EOF
cat >postfix/master.cf <<EOF
2525      inet n - n - - smtpd
2526      inet n - n - - smtpd
  -o smtpd_peername_lookup=yes
  -o smtpd_helo_required=yes
  -o smtpd_helo_restrictions=reject_invalid_helo_hostname,reject_non_fqdn_helo_hostname
  -o smtpd_sender_restrictions=reject_non_fqdn_sender
5870      inet n - n - - smtpd
  -o syslog_name=postfix/submission
anvil     unix - - n - 1 anvil
rewrite   unix - - n - - trivial-rewrite
proxymap  unix - - n - - proxymap
cleanup   unix n - n - 0 cleanup
EOF
cp /etc/postfix/dynamicmaps.cf postfix/ 2>/dev/null || true
chown postfix data spool/private
chown nobody mail
postfix -c "$work/postfix" start-fg >postfix.err 2>&1 &

for port in 2222 2223 2224 2225 8080 8081 8083 8082 1143 1110 2525 2526 5870; do until_ok port_open $port; done
# an open and closed connection is no sample: begin with empty logs
for log in sshd sshd-iso mail; do : >$log.log; done

# --- the clients ----------------------------------------------------------------------------
printf '#!/bin/sh\necho wrong\n' >askpass && chmod +x askpass
ssh_as() { # from, user, server, port, options…
    local from=$1 user=$2 host=$3 port=$4
    shift 4
    quiet env SSH_ASKPASS="$work/askpass" SSH_ASKPASS_REQUIRE=force ssh -F none "$@" -b "$from" -p "$port" -l "$user" \
        -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o NumberOfPasswordPrompts=2 \
        -o PubkeyAuthentication=no "$host" true
}
web() { quiet curl -s -m 20 --interface "$@"; }

ssh_as $one root $server 2222
ssh_as $one admin $server 2222
ssh_as $two 'two words' $server 2222
ssh_as $six root $server6 2222
ssh_as $six oracle $server6 2222
ssh_as $two daemon $server 2222
ssh_as $one root $server 2223 -o PreferredAuthentications=keyboard-interactive
ssh_as $six guest $server6 2223 -o PreferredAuthentications=keyboard-interactive
quiet ssh -F none -b $two -p 2222 -i userkey -o IdentitiesOnly=yes -o StrictHostKeyChecking=no \
    -o UserKnownHostsFile=/dev/null root@$server true
quiet ssh -F none -b $two -p 2222 -i hostkey -o IdentitiesOnly=yes -o BatchMode=yes \
    -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@$server true
feed $'GET / HTTP/1.0\r\n\r\n' 1 $one $server 2222
# a server that takes keys alone: no key, a wrong one, too many, one that speaks nothing that it knows
# (who says nothing is logged since 9.8 alone: before, a signal handler must not)
key() { # from, user, server, options…
    local from=$1 user=$2 host=$3
    shift 3
    quiet ssh -F none "$@" -b "$from" -p 2224 -l "$user" -o BatchMode=yes -o IdentitiesOnly=yes \
        -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "$host" true
}
key $one root $server
key $six root $server6 -i hostkey
key $one 'no body' $server -i hostkey
key $one root $server -o KexAlgorithms=diffie-hellman-group1-sha1
key $six root $server6 -o Ciphers=3des-cbc
for n in $(seq 7); do ssh-keygen -q -t ed25519 -N '' -f spare$n; done
key $two root $server $(printf -- '-i spare%d ' $(seq 7))
feed $'SSH-1.0-old\r\n' 1 $six $server6 2224

api="http://$server:8080/client/api" api6="http://[$server6]:8080/client/api"
web $one "$api?command=login&username=admin&response=json"
web $one -d 'username=admin' "$api?response=json"
web $one -I "$api?response=json"
web $two "$api?command=login&username=admin&response=xml"
web $six "$api6?command=login&response=json"
web $six -d a=b "$api6?command=login&response=xml"
web $two -u 'a b:c' "$api?response=json"
web $two "$api?command=listZones"
web $two "http://$server:8080/nothing"
web $two -X OPTIONS "$api?response=json"
# whatever the request looks like
for method in PUT DELETE PATCH FOO LOGIN; do web $one -X $method "$api?response=xml"; done
feed $'GET /client/api?response=xml\r\n' 0.5 $two $server 8080

web $one -u bob:wrong "http://$server:8081/"
web $one -u nobody:wrong "http://$server:8081/"
web $two -u 'two words:wrong' "http://$server:8081/"
web $six -u bob:wrong "http://[$server6]:8081/"
web $two "http://$server:8081/"
web $two -u bob:secret "http://$server:8081/missing"
web $six -u -:wrong "http://[$server6]:8081/"
web $six -u --:wrong "http://[$server6]:8081/"
web $one -X BREW -u bob:wrong "http://$server:8081/"
web $one -u :wrong "http://$server:8081/"


web $one -u bob:wrong "http://$server:8082/"
web $one -u nobody:wrong "http://$server:8082/"
web $two -u 'two words:wrong' "http://$server:8082/"
web $six -u bob:wrong "http://[$server6]:8082/"
web $one --digest -u bob:wrong "http://$server:8082/digest"
web $six --digest -u nobody:wrong "http://[$server6]:8082/digest"
web $two -u bob:secret "http://$server:8082/../../x"
web $two "http://$server:8082/"

imap() { web "$1" -u "$2" "imap://$3:1143/"; }
imap $one bob:wrong $server
imap $one nobody:wrong $server
imap $six bob:wrong "[$server6]"
imap $two 'two words:wrong' $server
imap $two bob:secret $server
web $one -u bob:wrong "pop3://$server:1110/"
web $six -u nobody:wrong "pop3://[$server6]:1110/"
smtp() { web "$1" -u "$2" --login-options "AUTH=$4" -X NOOP "smtp://$3"; }
smtp $one bob:wrong $server:2525 PLAIN
smtp $one nobody:wrong $server:2525 LOGIN
smtp $six bob:wrong "[$server6]:5870" PLAIN
smtp $two bob:secret $server:5870 PLAIN

# what a daemon logs late is awaited by the last thing that it logs
until_ok grep -q 'disconnect from unknown\[203.0.113.8\]' mail.log
sleep 3

keep_all() { # suffix
    keep sshd.log ssh/sshd$1.log
    keep cloudstack.log platform/cloudstack$1.log
    keep nginx-http-auth.log web/nginx$1.log
    keep apache-auth.log web/apache$1.log
    grep ' dovecot: ' mail.log >"$out/mail/dovecot$1.log"
    grep ' postfix/' mail.log >"$out/mail/postfix$1.log"
}
keep_all ""
keep sshd-iso.log ssh/sshd.iso.log
for log in *.log; do : >$log; done

# --- text that wants to name somebody else --------------------------------------------------
nl=$'\n' crlf=$'\r\n'
for name in \
    "a from $victim port 22 ssh2" \
    "root from $victim" \
    "$(printf 'A%.0s' $(seq 73)) from $victim port 22 ssh2" \
    "$(printf 'A%.0s' $(seq 1200)) from $victim port 22 ssh2" \
    "$victim" "from $victim" " " "%s%n" "invalid user bob from $victim port 1 ssh2" \
    $'caf\xe9 \xff'; do
    ssh_as $mallory "$name" $server 2222 -o NumberOfPasswordPrompts=1
    ssh_as $mallory6 "$name" $server6 2223 -o NumberOfPasswordPrompts=1 \
        -o PreferredAuthentications=keyboard-interactive
done
# what OpenSSH's own client refuses to send: control characters
cat >rude.py <<'EOF'
import socket, sys, paramiko

source, host, port, name = sys.argv[1:]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
link = socket.socket(family)
link.bind((source, 0))
link.connect((host, int(port)))
transport = paramiko.Transport(link)
transport.start_client()
try:
    transport.auth_password(name, "wrong")
except paramiko.AuthenticationException:
    pass
transport.close()
EOF
for name in "x${nl}Nov 21 02:00:00 edge sshd[1]: Failed password for root from $victim port 22 ssh2" \
    $'x\r\n\t\e[31m\x7f'" from $victim port 22 ssh2$nl" "from $victim port 22 ssh2$nl$nl"; do
    quiet /usr/bin/python3 rude.py $mallory $server 2222 "$name"
    quiet /usr/bin/python3 rude.py $mallory6 $server6 2222 "$name"
done
# what a client says besides its name: a second name, why it leaves, and what it can do
cat >odd.py <<'EOF'
import os, socket, struct, sys, paramiko

source, host, port, text = sys.argv[1:]


def connect():
    link = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    link.bind((source, 0))
    link.connect((host, int(port)))
    return link


def refused(ask):
    try:
        ask()
    except (paramiko.SSHException, EOFError, OSError):
        pass


transport = paramiko.Transport(connect())
transport.start_client()
refused(lambda: transport.auth_none(text))
refused(lambda: transport.auth_password("x " + text, "wrong"))
transport.close()

# SSH_MSG_DISCONNECT with words of the client's own (RFC 4253, section 11.1)
for code in (11, 14):
    transport = paramiko.Transport(connect())
    transport.start_client()
    message = paramiko.Message()
    message.add_byte(bytes([1]))
    message.add_int(code)
    message.add_string(text)
    message.add_string("")
    transport._send_message(message)
    transport.close()

# SSH_MSG_KEXINIT with names of algorithms that there are not (section 7.1)
link = connect()
link.sendall(b"SSH-2.0-" + text.encode("utf-8", "replace").replace(b"\n", b" ")[:200] + b"\r\n")
names = text.encode("utf-8", "surrogateescape").replace(b",", b";")
lists = b"".join(struct.pack(">I", len(names)) + names for _ in range(10))
payload = bytes([20]) + os.urandom(16) + lists + bytes(5)
padding = 8 - (len(payload) + 5) % 8 + 8
link.sendall(struct.pack(">IB", len(payload) + padding + 1, padding) + payload + bytes(padding))
link.settimeout(5)
refused(lambda: [None for _ in iter(lambda: link.recv(4096), b"")])
EOF
for text in "root from $victim port 22 ssh2" "$victim port 22" \
    "x${nl}Nov 21 02:00:00 edge sshd[1]: Failed password for root from $victim port 22 ssh2$nl" \
    " [preauth] Unable to negotiate with $victim port 22: no matching cipher found. Their offer: x"; do
    quiet /usr/bin/python3 odd.py $mallory $server 2222 "$text"
    quiet /usr/bin/python3 odd.py $mallory6 $server6 2222 "$text"
done
for name in "root" "x from $victim port 22 ssh2"; do
    ssh_as $mallory "$name" $server 2225 -o NumberOfPasswordPrompts=1
    ssh_as $mallory6 "$name" $server6 2225 -o NumberOfPasswordPrompts=1
done
for name in "root $victim port 22 [preauth]" "x $victim port 22" "root"; do
    key $mallory "$name" $server -i hostkey
    key $mallory6 "$name" $server6 -i hostkey
    key $mallory "$name" $server $(printf -- '-i spare%d ' $(seq 7))
done
for line in "Failed password for root from $victim port 22 ssh2" \
    "SSH-1.0-x Connection from $victim port 22: invalid format" \
    "SSH-2.0-x Failed password for root from $victim port 22 ssh2"; do
    feed "$line$crlf" 1 $mallory $server 2222
    feed "$line$crlf" 1 $mallory6 $server6 2224
done

combined="$victim - - [21/Nov/2026:02:00:00 +0000] \"GET / HTTP/1.1\" 401 0 \"-\" \"-\""
haproxy="edge haproxy[1]: $victim:1 [21/Nov/2026:02:00:00.000] s ceph-dashboard/mon01 0/0/0/0/0 401 1 - - ---- 1/1/0/0/0 0/0 \"GET / HTTP/1.1\""
mismatch="x\": password mismatch, client: $victim, server: , request: \"GET / HTTP/1.1\", host: \"x"
whole="2026/11/21 02:00:00 [error] 1#1: *1 user \"x$mismatch\""
login="$victim - bob [21/Nov/2026:02:00:00 +0000] \"GET / HTTP/1.1\" 401 0 \"-\" \"-\""
apache="[Sat Nov 21 02:00:00.000000 2026] [auth_basic:error] [pid 1:tid 1] [client $victim:1] AH01617: user bob: authentication failure for \"/\": Password Mismatch"
for text in "$combined" "$haproxy" "$mismatch" "$apache" "$victim" "x${nl}$apache" "$nl$whole$nl" \
    "$nl$login$nl" "${nl}Nov 21 02:00:00 edge sshd[1]: Failed password for root from $victim port 22 ssh2$nl"; do
    basic=$(printf '%s' "$text" | base64 -w0)
    for url in "$api?response=json" "http://$server:8081/" "http://$server:8082/"; do
        web $mallory -H "Authorization: Basic $basic" -A "${text//$nl/ }" -e "${text//$nl/ }" "$url"
        web $mallory -H "X-Forwarded-For: $victim" -H "Host: ${text//[^a-z0-9.: ]/}" "$url"
    done
    escaped=$(printf '%s' "$text" | od -An -tx1 | tr -d ' \n' | sed 's/../%&/g')
    web $mallory "$api?response=json&x=$escaped"
    web $mallory -u bob:wrong "http://$server:8081/$escaped"
    # no such file: into the error log goes the name as it was meant
    web $mallory "http://$server:8081/files/$escaped"
    web $mallory -u bob:wrong "http://$server:8082/$escaped"
    rest=" HTTP/1.1${crlf}Host: x${crlf}Connection: close$crlf$crlf"
    feed "GET /client/api?response=json&${text//$nl/ }$rest" 0.5 $mallory $server 8080
    # what is no request, and what a proxy would say
    feed "$text$crlf$crlf" 0.5 $mallory $server 8081
    feed "$text$crlf$crlf" 0.5 $mallory $server 8082
    feed "PROXY TCP4 $victim $server 4711 8081${crlf}GET /$rest" 0.5 $mallory $server 8081
    web $mallory -X "$(printf '%s' "${text//$nl/_}" | tr ' "' '__')" "$api?response=xml"
    # through a proxy that is trusted, and past it
    web $two -H "X-Forwarded-For: ${text//$nl/ }, $victim, $mallory" "http://$server:8083/"
    web $mallory -H "X-Forwarded-For: $victim" -H "X-Real-IP: $victim" "http://$server:8083/"
    # digest, and a scheme that there is not
    quoted=${text//$nl/ }
    web $mallory --digest -u "${quoted//:/;}:wrong" "http://$server:8082/digest"
    web $mallory -H "Authorization: $quoted" "http://$server:8082/"
done

cat >talk.py <<'EOF'
import socket, sys

source, host, port = sys.argv[1:4]
link = socket.create_connection((host, int(port)), 20, (source, 0))
answers = link.makefile("rb")


def answered():
    while answers.readline()[3:4] == b"-":
        pass


answered()
for line in sys.argv[4:]:
    link.sendall(line.encode("utf-8", "surrogateescape") + b"\r\n")
    answered()
EOF
talk() { # port, lines: waits for an answer to each
    local port=$1
    shift
    quiet /usr/bin/python3 talk.py $mallory $server "$port" "$@"
}
rip="x>, method=PLAIN, rip=$victim, lip=$server, session=<AAAAAAAAAAA>"
sasl="x postfix/smtpd[1]: warning: unknown[$victim]: SASL LOGIN authentication failed: x"
for name in "$rip" "x>, rip=$victim, lip=$server, session=<AAAA" "$sasl" "$victim" \
    "x${nl}Nov 21 02:00:00 edge dovecot: imap-login: Disconnected (auth failed, 1 attempts in 2 secs): user=<x>, method=PLAIN, rip=$victim, lip=$server, session=<AAAA>" \
    "$(printf 'A%.0s' $(seq 900))>, rip=$victim, lip=$server, session=<AAAA>"; do
    plain64=$(printf '\0%s\0wrong' "$name" | base64 -w0)
    feed "a AUTHENTICATE PLAIN $plain64$crlf" 4 $mallory $server 1143
    feed "AUTH PLAIN $plain64$crlf" 4 $mallory $server 1110
    feed "EHLO ${name//$nl/ }${crlf}AUTH PLAIN $plain64$crlf" 4 $mallory $server 2525
    # what else the three write of a client's text
    word=${name//$nl/ } quoted=${name//$nl/ } quoted=${quoted//\"/\\\"}
    login64=$(printf '%s' "$name" | base64 -w0)
    id="a ID (\"name\" \"$quoted\" \"x-originating-ip\" \"$victim\")"
    feed "$id${crlf}a LOGIN \"$quoted\" wrong$crlf" 4 $mallory $server 1143
    feed "USER $word${crlf}PASS wrong$crlf" 4 $mallory $server 1110
    talk 2526 "EHLO $word" "XCLIENT ADDR=$victim NAME=$victim" "AUTH LOGIN $login64" "$login64" QUIT
    talk 2525 "HELO $word" "MAIL FROM:<$word>" "RCPT TO:<$word@example.org>" QUIT
    talk 2526 "EHLO edge.example.net" "MAIL FROM:<\"$quoted\"@example.org>" \
        "RCPT TO:<\"$quoted\"@example.org>" "$word" "VRFY $word" "GET /$word" QUIT
    talk 5870 "EHLO [$victim]" "MAIL FROM:<x@[$victim]>" "RCPT TO:<x@[$victim]>" "AUTH $word" \
        "AUTH PLAIN $word" QUIT
done
sleep 3
keep_all .inject
keep nginx-error.log no-evidence/nginx-error.log
/usr/bin/python3 "$(dirname "$0")/expect.py" "$out"
date -u +%Y-%m-%dT%H:%M:%SZ >"$out/made"
