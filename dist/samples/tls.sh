#!/bin/bash
# Makes the logs `*.tls.inject.log`, `mail/dovecot.sieve*.log`, `web/apache.{access,cgi}*.log` and
# `no-evidence/{apache-cgid,nginx-error.tls}.log`: what stands in the same files as the lines of make.sh.
# Managesieve of Dovecot; TLS with a server name of the client's own choice, of nginx, Apache, HAProxy,
# Postfix and Dovecot; what a CGI program writes to its standard error; Apache's access log. Needs what
# make.sh and HAProxy need; what is not installed is unpacked. Two minutes.
#
# usage: tls.sh [DIRECTORY]     (default: the directory of this script)
set -Eeuo pipefail
prepare() {
    mkdir "$work/packages"
    (cd "$work/packages" && apt-get -q download dovecot-managesieved dovecot-sieve >/dev/null 2>&1)
    for package in "$work"/packages/*.deb; do dpkg -x "$package" "$work/root"; done
}
# read as a whole before anything is started
main() {
# --- the daemons ----------------------------------------------------------------------------
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=edge.example.org -keyout key.pem \
    -out cert.pem 2>/dev/null
cat key.pem cert.pem >both.pem

cp -a /usr/lib/dovecot lib && cp -a root/usr/lib/dovecot/. lib/ && mount --bind lib /usr/lib/dovecot
mkdir -p dovecot mail
printf 'bob:{PLAIN}secret:65534:65534::%s/mail::\n' "$work" >passwd
chown nobody mail
cat >dovecot.conf <<END
protocols = imap sieve
base_dir = $work/dovecot
listen = $server, $server6
ssl = yes
ssl_cert = <$work/cert.pem
ssl_key = <$work/key.pem
verbose_ssl = yes
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
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service imap-login {
  inet_listener imap {
    port = 1143
  }
  inet_listener imaps {
    port = 1993
  }
}
service managesieve-login {
  inet_listener sieve {
    port = 4190
  }
}
END
LD_LIBRARY_PATH=$work/lib dovecot -F -c "$work/dovecot.conf" 2>dovecot.err &

mkdir -p spool/private postfix data
cat >postfix/main.cf <<END
compatibility_level = 3.6
queue_directory = $work/spool
data_directory = $work/data
myhostname = edge.example.org
inet_interfaces = $server, $server6
mydestination =
alias_maps =
smtpd_relay_restrictions = reject
smtpd_peername_lookup = no
smtpd_tls_chain_files = $work/both.pem
smtpd_tls_security_level = may
smtpd_tls_loglevel = 1
smtpd_tls_received_header = yes
tls_server_sni_maps = inline:{example.net=$work/both.pem}
END
cat >postfix/master.cf <<END
4650      inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
2525      inet n - n - - smtpd
tlsmgr    unix - - n 1000? 1 tlsmgr
anvil     unix - - n - 1 anvil
rewrite   unix - - n - - trivial-rewrite
proxymap  unix - - n - - proxymap
cleanup   unix n - n - 0 cleanup
END
cp /etc/postfix/dynamicmaps.cf postfix/ 2>/dev/null || true
chown postfix data spool/private
postfix -c "$work/postfix" start-fg >postfix.err 2>&1 &

mkdir www && echo hello >www/index.html
cat >nginx.conf <<END
user root;
daemon off;
pid $work/nginx.pid;
error_log $work/nginx-error.log info;
events {}
http {
    ssl_certificate $work/cert.pem;
    ssl_certificate_key $work/key.pem;
    access_log $work/nginx.log combined;
    server { listen $server:8443 ssl http2; listen [$server6]:8443 ssl; root $work/www; }
    server { listen $server:8443 ssl; server_name known.example.org; return 401; }
    server { listen $server:8444 ssl; ssl_reject_handshake on; }
    server { listen $server:8445 ssl; ssl_verify_client on; ssl_client_certificate $work/cert.pem; }
}
END
nginx -c "$work/nginx.conf" -e "$work/nginx-start.log" &

mkdir cgi
# what many programs do: a warning with what they were asked for
cat >cgi/warn.cgi <<'END'
#!/bin/bash
plain=${QUERY_STRING//+/ }
printf '%b\n' "bad request: ${plain//%/\\x}" >&2
printf 'Content-Type: text/plain\n\nok\n'
END
cp cgi/warn.cgi cgi/broken.cgi && sed -i '/Content-Type/d' cgi/broken.cgi
chmod 755 cgi/*.cgi
modules=/usr/lib/apache2/modules
for kind in cgi cgid; do
    case $kind in cgi) mpm=prefork port=8446 ;; cgid) mpm=event port=8447 ;; esac
    mkdir "run-$kind"
    {
        for module in "mpm_$mpm" $kind alias ssl authn_core authn_file authz_core authz_user auth_basic; do
            echo "LoadModule ${module}_module $modules/mod_$module.so"
        done
        cat <<END
ServerRoot $work
ServerName edge.example.org
PidFile $work/run-$kind/apache.pid
Mutex file:$work/run-$kind
ErrorLog $work/apache-$kind.log
LogFormat "%h %l %u %t \\"%r\\" %>s %O \\"%{Referer}i\\" \\"%{User-Agent}i\\"" combined
CustomLog $work/access.log combined
LogLevel info
Listen $server:$port
Listen [$server6]:$port
DocumentRoot $work/www
User www-data
Group www-data
ScriptAlias /cgi-bin/ $work/cgi/
<Directory />
    Require all granted
</Directory>
<VirtualHost *:$port>
    ServerName edge.example.org
    SSLEngine on
    SSLStrictSNIVHostCheck on
    SSLCertificateFile $work/cert.pem
    SSLCertificateKeyFile $work/key.pem
    <Location "/private">
        AuthType Basic
        AuthName staff
        AuthUserFile $work/htpasswd
        Require valid-user
    </Location>
</VirtualHost>
<VirtualHost *:$port>
    ServerName known.example.org
    SSLEngine on
    SSLCertificateFile $work/cert.pem
    SSLCertificateKeyFile $work/key.pem
</VirtualHost>
END
        if [ $kind = cgid ]; then echo "ScriptSock $work/run-cgid/sock"; fi
    } >apache-$kind.conf
done
printf 'bob:%s\n' "$(openssl passwd -apr1 secret)" >htpasswd
chmod 644 htpasswd
for kind in cgi cgid; do /usr/sbin/apache2 -D FOREGROUND -f "$work/apache-$kind.conf" & done

cat >haproxy.cfg <<END
global
    log /dev/log local0
defaults
    mode http
    log global
    timeout client 5s
    timeout server 5s
    timeout connect 5s
frontend https
    bind $server:8448 ssl crt $work/both.pem
    bind [$server6]:8448 ssl crt $work/both.pem
    option httpslog
    http-request deny if { path_beg /denied }
    default_backend web
frontend strict
    bind $server:8449 ssl strict-sni crt $work/both.pem
    option httpslog
    error-log-format "%ci:%cp [%tr] %ft %[ssl_fc_err_str] %[ssl_fc_sni]"
    default_backend web
frontend plain
    bind $server:8450
    mode tcp
    option tcplog
    tcp-request inspect-delay 1s
    tcp-request content capture req.ssl_sni len 200
    tcp-request content reject
backend web
    http-request return status 401
END
haproxy -db -f haproxy.cfg 2>haproxy.err &

for port in 1143 1993 4190 4650 2525 8443 8444 8445 8446 8447 8448 8449; do until_ok port_open $port; done
sleep 1
for log in *.log; do : >"$log"; done

# --- managesieve: who fails, and who does not -------------------------------------------------
sieve() { # from, to, seconds, lines
    local from=$1 to=$2 time=$3 text=
    shift 3
    for line in "$@"; do text+=$line$'\r\n'; done
    feed "$text" "$time" "$from" "$to" 4190
}
plain() { printf '\0%s\0%s' "$1" "$2" | base64 -w0; }
for who in "$one bob wrong $server" "$two nobody wrong $server" "$six bob wrong $server6" \
    "$two bob secret $server"; do
    # shellcheck disable=SC2086
    set -- $who
    sieve "$1" "$4" 4 "AUTHENTICATE \"PLAIN\" \"$(plain "$2" "$3")\"" LOGOUT
done
sieve $two $server 1 LOGOUT
until_ok grep -q 'managesieve-login.*rip=2001:db8::7' mail.log
sleep 1
grep ' dovecot: ' mail.log | sed "s#$work/#/srv/#" >"$out/mail/dovecot.sieve.log"
for log in *.log; do : >"$log"; done

# --- basic auth, as the access log tells of it --------------------------------------------------
web() { # from, address of the server, curl's options
    local from=$1 to=$2
    shift 2
    quiet curl -sk -m 20 --interface "$from" --resolve "edge.example.org:8446:$to" "$@" \
        https://edge.example.org:8446/private
}
web $one $server -u bob:wrong
web $one $server -u nobody:wrong
web $two $server -u 'two "words":wrong'
web $six "[$server6]" -u bob:wrong
web $two $server
web $two $server -u bob:secret
web $six "[$server6]" -u --:wrong
until_ok grep -q '^2001:db8::7 - -- ' access.log
keep access.log web/apache.access.log
for log in *.log; do : >"$log"; done

# --- text that wants to name somebody else ------------------------------------------------------
cat >tls.py <<'END'
"""Speaks TLS with a server name as it was given: control characters, spaces, anything."""
import os, socket, struct, sys

source, host, port, name, starttls = sys.argv[1:6]
name = name.encode("utf-8", "surrogateescape")
link = socket.create_connection((host, int(port)), 10, (source, 0))
link.settimeout(0.5)
if starttls == "smtp":
    link.recv(500), link.sendall(b"EHLO x\r\n"), link.recv(500), link.sendall(b"STARTTLS\r\n"), link.recv(500)
if starttls == "imap":
    link.recv(500), link.sendall(b"a STARTTLS\r\n"), link.recv(500)
if starttls == "sieve":
    link.recv(500), link.sendall(b"STARTTLS\r\n"), link.recv(500)


def field(size, data):
    return len(data).to_bytes(size, "big") + data


# RFC 6066, section 3: the name; and groups, signatures, versions of RFC 8446
extensions = b"".join(struct.pack(">H", kind) + field(2, data) for kind, data in [
    (0, field(2, b"\0" + field(2, name))),
    (10, field(2, b"\0\x1d\0\x17")),
    (13, field(2, bytes.fromhex("040308040401050308050501080606010201"))),
    (16, field(2, field(1, name[:200]))),
])
hello = b"\x03\x03" + os.urandom(32) + b"\0" + field(2, bytes.fromhex("c02fc030c02bc02c009c009d")) + b"\x01\0"
hello = b"\x01" + field(3, hello + field(2, extensions))
link.sendall(b"\x16\x03\x01" + field(2, hello))
try:
    link.recv(4096)
    # no key exchange follows: words, as plain as they are
    link.sendall(name + b"\r\n")
    link.recv(4096)
except OSError:
    pass
END
hello() { # port, name, starttls
    quiet /usr/bin/python3 tls.py $mallory $server "$1" "$2" "${3:-}"
}
whole() { # port, name, request: a handshake that succeeds
    { printf '%s' "$3" && sleep 0.3; } | timeout 20 openssl s_client -quiet -servername "$2" \
        -bind $mallory:0 -connect "$server:$1" >/dev/null 2>&1 || true
}
nl=$'\n' crlf=$'\r\n'
stamp="[Sat Nov 28 00:00:00.000000 2026]"
apache="$stamp [auth_basic:error] [pid 1:tid 1] [client $victim:1] AH01617: user bob: authentication failure for \"/\": Password Mismatch"
denied="$stamp [authz_core:error] [pid 1] [client $victim:1] AH01630: client denied by server configuration: /"
login="$victim - bob [28/Nov/2026:00:00:00 +0000] \"GET / HTTP/1.1\" 401 0 \"-\" \"-\""
rip="x>, method=PLAIN, rip=$victim, lip=$server, session=<AAAAAAAAAAA>"
gone="Disconnected (auth failed, 1 attempts in 2 secs): user=<x>, method=PLAIN, rip=$victim, lip=$server, session=<AAAA>"
sasl="warning: unknown[$victim]: SASL LOGIN authentication failed: x"
haproxy="$victim:1 [28/Nov/2026:00:00:00.000] https https/<NOSRV> 0/-1/-1/-1/0 403 1 - - PR-- 1/1/0/0/0 0/0 \"GET / HTTP/1.1\""
forge() { # text
    local text=$1 line escaped port program
    for port in 8443 8444 8445 8446 8447 8448 8449 8450 1993 4650; do hello $port "$text"; done
    hello 2525 "$text" smtp
    hello 1143 "$text" imap
    hello 4190 "$text" sieve
    line=${text//$nl/ }
    # not TLS at all, where TLS is expected
    for port in 8443 8446 8448 1993 4650; do feed "$text$crlf$crlf" 0.3 $mallory $server $port; done
    for port in 8443 8445 8446 8447 8448 8449; do
        whole $port "$line" "GET /denied/${line//[ \"]/_} HTTP/1.1${crlf}Host: known.example.org${crlf}User-Agent: $line${crlf}Connection: close$crlf$crlf"
        # another name in the request than in the handshake
        whole $port known.example.org "GET /private HTTP/1.1${crlf}Host: ${line//[^a-z0-9.:]/}${crlf}Authorization: Basic $(printf 'bob:%s' "$line" | base64 -w0)${crlf}Connection: close$crlf$crlf"
    done
    whole 1993 "$line" "a LOGIN \"${line//[\"\\]/}\" wrong$crlf"
    whole 4650 "$line" "EHLO $line${crlf}MAIL FROM:<$line>$crlf"
    # managesieve: names, scripts, and what is no command
    sieve $mallory $server 4 "AUTHENTICATE \"PLAIN\" \"$(plain "$text" wrong)\"" LOGOUT
    sieve $mallory6 $server6 1 "AUTHENTICATE \"${line//[\"\\]/}\" \"x\"" "$line" "PUTSCRIPT \"${line//[\"\\]/}\" {1+}" LOGOUT
    # a program that repeats what it was asked
    escaped=$(printf '%s' "$text" | od -An -tx1 | tr -d ' \n' | sed 's/../%&/g')
    for port in 8446 8447; do
        for program in warn broken; do
            whole $port edge.example.org "GET /cgi-bin/$program.cgi?$escaped HTTP/1.1${crlf}Host: edge.example.org${crlf}Connection: close$crlf$crlf"
        done
    done
}
forging=()
for text in "$victim" "$rip" "${nl}Nov 28 00:00:00 edge dovecot: managesieve-login: $gone" \
    "${nl}Nov 28 00:00:00 edge postfix/smtpd[1]: $sasl$nl" "$sasl" "$nl$login$nl" "$login" \
    "$haproxy" "${nl}Nov 28 00:00:00 edge haproxy[1]: $haproxy$nl" "$nl$apache$nl" "$apache" \
    "${nl}$denied$nl" "$victim.example.net" "rip=$victim, lip=$server" "a\"b'c\\d,$victim"; do
    forge "$text" &
    forging+=($!)
done
wait "${forging[@]}"
sleep 3
grep ' dovecot: ' mail.log | grep -v ' SSL: where=' | sed "s#$work/#/srv/#" >"$out/mail/dovecot.sieve.inject.log"
grep ' postfix/' mail.log >"$out/mail/postfix.tls.inject.log"
keep nginx.log web/nginx.tls.inject.log
keep haproxy.log proxy/haproxy.tls.inject.log
keep access.log web/apache.access.inject.log
# mod_cgi tells what a program wrote line by line, and escapes it; mod_cgid hands it the log itself
keep apache-cgi.log web/apache.cgi.inject.log
keep apache-cgid.log no-evidence/apache-cgid.log
keep nginx-error.log no-evidence/nginx-error.tls.log
/usr/bin/python3 "$(dirname "$0")/expect.py" "$out"
date -u +%Y-%m-%dT%H:%M:%SZ >"$out/made"
}
. "$(dirname "$0")/scene.sh"
main
exit
