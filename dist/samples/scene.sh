# The scene of make.sh and tls.sh, which read this file: namespaces without a network but a loopback
# that owns the documentation addresses, a /dev and a rsyslog of their own, and what clients do. The
# script is started anew inside of them; everything that it started dies with its process namespace.
# What needs the network it does before, in a function `prepare`.
trap 'echo "$(basename "$0"): line $LINENO failed: $BASH_COMMAND" >&2' ERR

if [ "${1:-}" != --inside ]; then
    out=$(realpath "${1:-$(dirname "$0")}")
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    if declare -F prepare >/dev/null; then prepare; fi
    unshare --net --mount --uts --ipc --pid --fork --mount-proc --kill-child \
        "$(realpath "$0")" --inside "$work" "$out"
    exit
fi
work=$2 out=$3
cd "$work"
chmod 755 .
hostname edge
export LC_ALL=C TZ=UTC

# --- the scene ------------------------------------------------------------------------------
ip link set lo up
server=192.0.2.1 server6=2001:db8:1::1
one=203.0.113.7 two=203.0.113.8 six=2001:db8::7 mallory=203.0.113.66 mallory6=2001:db8::66
for address in $server $one $two $mallory; do ip addr add $address/32 dev lo; done
for address in $server6 $six $mallory6; do ip addr add $address/128 dev lo nodad; done
# the victim, whom the forged lines name; it never sends anything
victim=198.51.100.66

mkdir dev && mount -t tmpfs none dev && mkdir dev/pts dev/shm
for node in null zero full random urandom tty ptmx; do
    : >dev/$node && mount --bind /dev/$node dev/$node
done
mount --rbind /dev/pts dev/pts && mount --rbind dev /dev
mount -t tmpfs none /run && mkdir -p /run/sshd
# what mallory's own name server says of mallory's addresses
cat >hosts <<EOF
127.0.0.1 localhost
$mallory $victim.from-$victim.example.org
$mallory6 198.51.100.66
EOF
mount --bind hosts /etc/hosts

cat >rsyslog.conf <<EOF
module(load="imuxsock" SysSock.RateLimit.Interval="0")
auth,authpriv.*  action(type="omfile" file="$work/sshd.log" template="RSYSLOG_TraditionalFileFormat")
auth,authpriv.*  action(type="omfile" file="$work/sshd-iso.log" template="RSYSLOG_FileFormat")
local0.*         action(type="omfile" file="$work/haproxy.log" template="RSYSLOG_TraditionalFileFormat")
mail.*           action(type="omfile" file="$work/mail.log" template="RSYSLOG_TraditionalFileFormat")
EOF
rsyslogd -n -f "$work/rsyslog.conf" -i "$work/rsyslog.pid" &

# waits until a command succeeds
until_ok() {
    for _ in $(seq 200); do "$@" >/dev/null 2>&1 && return; sleep 0.05; done
    echo "gave up waiting for: $*" >&2
    tail -n 5 ./*.err ./*.log >&2 || true
    exit 1
}
port_open() { (: >"/dev/tcp/$server/$1") 2>/dev/null; }
feed() { # text, seconds, from, to, port: sends a text and listens for a while
    { printf '%s' "$1" && sleep "$2"; } | timeout 60 nc -N -s "$3" "$4" "$5" >/dev/null 2>&1 || true
}
quiet() { timeout 60 "$@" >/dev/null 2>&1 </dev/null || true; }
until_ok test -S /dev/log

keep() { # source, name: what one subject's lines look like
    sed "s#$work/htpasswd#/etc/nginx/htpasswd#; s#$work/#/srv/#" "$1" >"$out/$2"
}
