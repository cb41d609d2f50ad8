#!/bin/sh
# Run by rootfs.sh in namespaces of its own (network, mounts, processes): what a pod does with the two images.
set -eu
root=$1
ip link set lo up
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/run"
mount -t devtmpfs devtmpfs "$root/dev" 2>/dev/null || mount --bind /dev "$root/dev"
mount -o remount,bind,ro "$root"
# Another host, joined by a cable.
unshare --net sleep 600 &
far=$!
until [ "$(readlink /proc/$far/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
ip link add eth0 type veth peer name eth0 netns "$far"
there() { nsenter --net="/proc/$far/ns/net" "$@"; }
ip addr add 10.78.0.1/24 dev eth0
ip link set eth0 up
there ip link set lo up
there ip addr add 10.78.0.2/24 dev eth0
there ip link set eth0 up

inside() { chroot "$root" env -i PATH=/opt/mesh-proxy/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONDONTWRITEBYTECODE=1 "$@"; }
proxy() { inside setpriv --reuid 1337 --regid 1337 --clear-groups --bounding-set=-all --no-new-privs "$@"; }
application() { inside setpriv --reuid 1000 --regid 1000 --clear-groups "$@"; }

echo "-- user, root"
proxy sh -c 'id -u; touch /written 2>&1 || true'
echo "-- init container"
inside mesh-proxy iptables apply -p 15001 -z 15006 -u 1337 -i '*' -x '' -b '*' -d 15020,15021
inside mesh-proxy iptables apply -p 15001 -z 15006 -u 1337 -i '*' -x '' -b '*' -d 15020,15021
echo "-- application"
mkfifo -m 666 "$root/tmp/input"
application sh -c 'exec /opt/mesh-proxy/bin/python -m mesh_proxy.demo.service v1 --host 0.0.0.0 --port 8081 </tmp/input' >/dev/null &
exec 3>"$root/tmp/input"
echo "-- sidecar"
# Not by the function, which would be a shell between us and the process.
chroot "$root" env -i PATH=/opt/mesh-proxy/bin:/usr/bin:/bin TERMINATION_DRAIN_DURATION_SECONDS=1 \
  setpriv --reuid 1337 --regid 1337 --clear-groups --bounding-set=-all --no-new-privs \
  mesh-proxy -c /etc/mesh/bootstrap.yaml --concurrency 1 --log-level warning --status-port 15021 --status-port 15020 &
sidecar=$!
proxy mesh-proxy wait --timeout 60
echo "ready"
echo "-- a call from the other host"
get='import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=30).read().decode(), end="")'
there chroot "$root" /opt/mesh-proxy/bin/python -c "$get" http://10.78.0.1:8081/hello
there chroot "$root" /opt/mesh-proxy/bin/python -c "$get" http://10.78.0.1:15020/stats/prometheus >"$root/tmp/metrics"
grep '^envoy_listener_downstream_cx_total{.*15006' "$root/tmp/metrics"
echo "-- the end"
kill "$sidecar"
wait "$sidecar" && echo "drained, exit code 0"
inside mesh-proxy iptables clean
test -z "$(inside mesh-proxy iptables show)" && echo "no rule is left"
