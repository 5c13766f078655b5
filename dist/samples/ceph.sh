#!/bin/bash
# Makes platform/ceph*.log: a real Ceph (mon, mgr with the dashboard, osd, rgw) behind a real HAProxy, in
# namespaces of its own (no network but a loopback that owns the documentation addresses), with clients
# that guess and clients that do not. Needs root, the packages that README.md names, 0.5 GB of memory and
# half a minute. Debian's packages are unpacked, not installed; everything dies with its namespace.
#
# usage: ceph.sh [DIRECTORY]     (default: the directory of this script)
# CEPH_PACKAGES=FOLDER names a folder that holds the packages already.
set -Eeuo pipefail
trap 'echo "ceph.sh: line $LINENO failed: $BASH_COMMAND" >&2' ERR

if [ "${1:-}" != --inside ]; then
    out=$(realpath "${1:-$(dirname "$0")}")
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    chmod 755 "$work"
    packages=${CEPH_PACKAGES:-}
    if [ -z "$packages" ]; then
        packages=$work/packages
        mkdir "$packages"
        wanted=$(apt-get -s install --no-install-recommends ceph-mon ceph-mgr ceph-mgr-dashboard \
            ceph-osd radosgw ceph-common haproxy | awk '/^Inst/{print $2}')
        # shellcheck disable=SC2086
        (cd "$packages" && apt-get -q download $wanted)
    fi
    for package in "$packages"/*.deb; do dpkg -x "$package" "$work/root"; done
    unshare --net --mount --uts --ipc --pid --fork --mount-proc --kill-child \
        "$(realpath "$0")" --inside "$work" "$out"
    exit
fi
work=$2 out=$3
cd "$work"
hostname edge
root=$work/root
export LC_ALL=C TZ=UTC CEPH_CONF=$work/ceph.conf
export LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu/ceph:$root/lib/x86_64-linux-gnu
export PYTHONPATH=$root/usr/lib/python3/dist-packages
export PATH=$root/usr/bin:$root/usr/sbin:/usr/sbin:/usr/bin:/sbin:/bin

# --- the scene ------------------------------------------------------------------------------
ip link set lo up
server=192.0.2.1 server6=2001:db8:1::1
one=203.0.113.7 two=203.0.113.8 six=2001:db8::7 mallory=203.0.113.66 mallory6=2001:db8::66
for address in $server $one $two $mallory; do ip addr add $address/32 dev lo; done
for address in $server6 $six $mallory6; do ip addr add $address/128 dev lo nodad; done
# the victim, whom the forged lines name; it never sends anything
victim=198.51.100.66

# waits until a command succeeds
until_ok() {
    for _ in $(seq 1200); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done
    echo "gave up waiting for: $*" >&2
    tail -n 5 log/* >&2 || true
    exit 1
}
quiet() { timeout 60 "$@" >/dev/null 2>&1 </dev/null || true; }
web() { quiet curl -s -m 30 --interface "$@"; }
feed() { # text, from, port: sends a text and listens for a while
    { printf '%s' "$1" && sleep 1; } | timeout 60 nc -N -s "$2" $server "$3" >/dev/null 2>&1 || true
}

mkdir -p data/mon.a data/mgr.x data/osd.0 data/rgw.a run log
cat >rsyslog.conf <<EOF
module(load="imudp")
input(type="imudp" port="514" address="127.0.0.1")
*.*  action(type="omfile" file="$work/log/haproxy.log" template="RSYSLOG_TraditionalFileFormat")
EOF
env -u LD_LIBRARY_PATH rsyslogd -n -f "$work/rsyslog.conf" -i "$work/rsyslog.pid" &

# --- the daemons ----------------------------------------------------------------------------
cat >ceph.conf <<EOF
[global]
fsid = 11111111-2222-3333-4444-555555555555
mon initial members = a
mon host = v2:127.0.0.1:3300,v1:127.0.0.1:6789
public addr = 127.0.0.1
cluster addr = 127.0.0.1
run dir = $work/run
keyring = $work/run/keyring
admin socket = $work/run/\$cluster-\$name.asok
log file = $work/log/\$cluster-\$name.log
log to stderr = false
err to stderr = true
pid file = $work/run/\$name.pid
erasure code dir = $root/usr/lib/x86_64-linux-gnu/ceph/erasure-code
plugin dir = $root/usr/lib/x86_64-linux-gnu/ceph
osd class dir = $root/usr/lib/x86_64-linux-gnu/rados-classes
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
osd pool default pg autoscale mode = off
[mon]
mgr initial modules = dashboard
mon data = $work/data/mon.\$id
mon cluster log file = $work/log/cluster.log
auth allow insecure global id reclaim = false
mon data avail warn = 1
mon data avail crit = 1
[mgr]
mgr data = $work/data/mgr.\$id
mgr module path = $root/usr/share/ceph/mgr
mgr disabled modules = diskprediction_local restful
[osd]
osd data = $work/data/osd.\$id
osd objectstore = memstore
memstore device bytes = 268435456
osd memory target = 939524096
[client.rgw.a]
keyring = $work/run/keyring
rgw data = $work/data/rgw.a
rgw frontends = beast port=7480
rgw enable apis = s3, s3website, swift, swift_auth, admin
EOF
key() { ceph-authtool run/keyring --gen-key -n "$@" >/dev/null; }
monmaptool --create --fsid 11111111-2222-3333-4444-555555555555 \
    --addv a '[v2:127.0.0.1:3300,v1:127.0.0.1:6789]' run/monmap >/dev/null
ceph-authtool --create-keyring run/keyring --gen-key -n mon. --cap mon 'allow *' >/dev/null
key client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' --cap mds 'allow *'
key mgr.x --cap mon 'allow profile mgr' --cap osd 'allow *' --cap mds 'allow *'
key osd.0 --cap mon 'allow profile osd' --cap osd 'allow *' --cap mgr 'allow profile osd'
key client.rgw.a --cap mon 'allow rw' --cap osd 'allow rwx' --cap mgr 'allow rw'
ceph-mon -i a --mkfs --monmap run/monmap --keyring run/keyring
ceph-mon -i a
until_ok timeout 20 ceph -s
for option in ssl:false server_addr::: server_port:8080; do
    ceph config set --force mgr mgr/dashboard/"${option%%:*}" "${option#*:}"
done
ceph-mgr -i x
ceph osd new 22222222-2222-3333-4444-555555555555 0 >/dev/null
ceph-osd -i 0 --mkfs --osd-uuid 22222222-2222-3333-4444-555555555555
ceph-osd -i 0
ceph osd crush add osd.0 1.0 host=edge root=default >/dev/null 2>&1
radosgw -n client.rgw.a
until_ok curl -sf http://127.0.0.1:7480/
until_ok curl -sf http://127.0.0.1:8080/

cat >haproxy.cfg <<EOF
global
    log 127.0.0.1:514 local1
defaults
    mode http
    log global
    option httplog
    option forwardfor
    timeout connect 5s
    timeout client 50s
    timeout server 60s
frontend dashboard
    bind $server:8443
    bind $server6:8443 v6only
    capture request header User-Agent len 128
    default_backend ceph-dashboard
frontend s3
    bind $server:8000
    bind $server6:8000 v6only
    default_backend ceph-rgw
backend ceph-dashboard
    option httpchk GET /
    http-check expect status 200
    server mon01 127.0.0.1:8080 check
backend ceph-rgw
    server rgw01 127.0.0.1:7480
EOF
haproxy -W -f haproxy.cfg 2>log/haproxy.err &
until_ok curl -sf http://$server:8000/
until_ok curl -sf http://$server:8443/

printf 'Adm1n-Secret!' >run/pw
ceph dashboard ac-user-create --force-password admin -i run/pw administrator >/dev/null
radosgw-admin user create --uid=alice --display-name=Alice --access-key=AKIDALICE \
    --secret=alicesecret >/dev/null 2>&1
radosgw-admin subuser create --uid=alice --subuser=alice:swift --access=full --key-type=swift \
    --secret=swiftsecret >/dev/null 2>&1
: >log/haproxy.log
: >log/ceph-client.rgw.a.log
: >log/ceph-mgr.x.log

# --- the clients ----------------------------------------------------------------------------
D="http://$server:8443" D6="http://[$server6]:8443"
V='Accept: application/vnd.ceph.api.v1.0+json' J='Content-Type: application/json'
guess() { # from, url, user, password, options…
    local from=$1 url=$2 body="{\"username\":\"$3\",\"password\":\"$4\"}"
    shift 4
    web "$from" -H "$V" -H "$J" -d "$body" "$@" "$url"
}
guess $one $D/api/auth admin wrong
guess $one $D/api/auth nobody wrong
guess $six "$D6/api/auth" admin wrong
guess $six "$D6/api/auth/" nobody wrong
guess $one $D/api/%61uth nobody wrong --path-as-is
guess $one http://edge.example.org/api/auth nobody wrong --proxy $D
guess $one $D/api/auth admin ''
guess $two $D/api/auth admin 'Adm1n-Secret!'
web $two -H "$V" -H 'Authorization: Bearer x.y.z' $D/api/summary
web $two -H "$J" -d '{}' $D/api/auth
web $two -H "$V" $D/api/auth
web $two -H "$V" -H "$J" -d '{}' $D/api/auth/logout
web $two $D/

S="http://$server:8000" S6="http://[$server6]:8000" R="http://$server:7480"
s3() { # from, key:secret, method, gateway, path, options…: signed as S3 version 2
    local from=$1 user=$2 method=$3 gateway=$4 path=$5 date sign
    shift 5
    date=$(date -uR)
    sign=$(printf '%s\n\ntext/plain\n%s\n%s' "$method" "$date" "${path%%\?*}" |
        env -u LD_LIBRARY_PATH openssl dgst -sha1 -hmac "${user#*:}" -binary | base64)
    web "$from" -X "$method" -H 'Content-Type: text/plain' -H "Date: $date" \
        -H "Authorization: AWS ${user%%:*}:$sign" "$@" "$gateway$path"
}
for gateway in "$S" "$R"; do
    s3 $two AKIDALICE:alicesecret PUT "$gateway" /pics
    s3 $two AKIDALICE:alicesecret PUT "$gateway" /pics/cat.txt -d meow
    s3 $two AKIDALICE:alicesecret GET "$gateway" /pics/cat.txt
    s3 $two AKIDALICE:alicesecret GET "$gateway" /pics/none.txt
    s3 $one AKIDALICE:wrong GET "$gateway" /pics/cat.txt
    s3 $one AKIDNOBODY:wrong GET "$gateway" /pics/cat.txt
    s3 $one AKIDNOBODY:wrong PUT "$gateway" /pics/cat.txt -d x
    web $two "$gateway/pics/cat.txt"
    web $two "$gateway/"
    web $one -H 'X-Auth-User: alice:swift' -H 'X-Auth-Key: wrong' "$gateway/auth/v1.0"
    web $one -H 'X-Auth-User: nobody:swift' -H 'X-Auth-Key: wrong' "$gateway/auth/v1.0"
    web $two -H 'X-Auth-User: alice:swift' -H 'X-Auth-Key: swiftsecret' "$gateway/auth/v1.0"
    s3 $one AKIDALICE:wrong GET "$gateway" "/admin/user?uid=alice"
done
s3 $six AKIDALICE:wrong GET "$S6" /pics/cat.txt
s3 $six AKIDALICE:wrong GET "http://[$server6]:7480" /pics/cat.txt

keep() { # suffix
    grep -a ' haproxy\[' log/haproxy.log >"$out/platform/ceph$1.log"
    grep -a ' beast: ' log/ceph-client.rgw.a.log >"$out/platform/ceph.beast$1.log"
}
# asks for a bucket that is not there, and waits until both logs tell of it
settle() {
    web $two "$S/$1"
    web $two "$R/$1"
    until_ok grep -q "/$1 HTTP" log/haproxy.log
    until_ok grep -q "/$1 HTTP" log/ceph-client.rgw.a.log
}
settle first
keep ""
: >log/haproxy.log
: >log/ceph-client.rgw.a.log
: >log/ceph-mgr.x.log

# --- text that wants to name somebody else --------------------------------------------------
nl=$'\n' crlf=$'\r\n'
manager="2026-11-21T02:00:00.000+0000 7f0000000000  0 [dashboard INFO request] [::ffff:$victim:1] [POST] [400] [0.1s] [85.0B] [x] /api/auth"
haproxy="edge haproxy[1]: $victim:1 [21/Nov/2026:02:00:00.000] s ceph-dashboard/mon01 0/0/0/0/0 400 1 - - ---- 1/1/0/0/0 0/0 \"POST /api/auth HTTP/1.1\""
beast="2026-11-21T02:00:00.000+0000 7f0000000000  1 beast: 0x7f0000000000: $victim - - [21/Nov/2026:02:00:00.000 +0000] \"GET / HTTP/1.1\" 403 1 "
for text in "$manager" "$haproxy" "$beast" "$victim" "x\"$beast" "$nl$manager$nl" "$nl$haproxy" "$nl$beast$nl"; do
    escaped=$(printf '%s' "$text" | od -An -tx1 | tr -d ' \n' | sed 's/../%&/g')
    line=${text//$nl/ }
    web $mallory "$D/$escaped"
    guess $mallory "$D/api/auth?$escaped" nobody wrong
    body=${text//\"/\\\"}
    guess $mallory "$D/api/auth" "${body//$nl/\\n}" wrong -A "$line" -e "$line"
    for gateway in "$S" "$R"; do
        web $mallory -A "$line" -e "$line" -H "X-Forwarded-For: $victim" "$gateway/pics/$escaped"
        s3 $mallory AKIDNOBODY:wrong GET "$gateway" /pics/cat.txt -A "$line" -e "$line"
        web $mallory -H "X-Auth-User: $line" -H "X-Auth-Key: $line" -A "$line" "$gateway/auth/v1.0"
    done
    feed "GET /pics/$line HTTP/1.1${crlf}Host: x${crlf}Connection: close$crlf$crlf" $mallory 7480
done
settle second
keep .inject
# the manager's log, as it is written: whole lines of the client's
grep -a 'dashboard INFO request' log/ceph-mgr.x.log >"$out/no-evidence/ceph-mgr.log"
env -u LD_LIBRARY_PATH -u PYTHONPATH /usr/bin/python3 "$(dirname "$0")/expect.py" "$out"
