#!/bin/sh
# The steps of the Dockerfile without a container registry: a plain root file system, the wheel in it, and the result tried out.
#
#   docker/rootfs.sh DIRECTORY [PYTHON]
#
# Needs root, debootstrap and the network (a Debian mirror and a Python package index), and the same minor version of Python outside as
# Debian has inside, for the wheels: PYTHON is the one to build with [python3.11], SUITE the Debian [bookworm]. An image of today is
# `SUITE=trixie docker/rootfs.sh DIRECTORY python3.13`. An existing DIRECTORY is used as it is. The data path is compiled, which needs a
# C compiler outside and some minutes; COMPILED=false leaves it interpreted.
set -eu
root=${1:?usage: docker/rootfs.sh DIRECTORY [PYTHON]}
python=${2:-python3.11}
top=$(cd "$(dirname "$0")/.." && pwd)

say() { printf '\n== %s\n' "$*"; }

if [ ! -e "$root/etc/debian_version" ]; then
  say "the base image: debootstrap"
  debootstrap --variant=minbase --include=python3,python3-venv,iptables,iproute2 "${SUITE:-bookworm}" "$root" "${MIRROR:-http://deb.debian.org/debian}"
fi

say "stage builder: the wheel and what it needs"
wheels=$root/wheels
rm -rf "$wheels"
source=$(mktemp -d)
(cd "$top" && cp -r pyproject.toml compiled.toml hatch_build.py README.md LICENSE mesh_proxy codecs filters hotrestart "$source"/)
find "$source" \( -name '*.so' -o -name __pycache__ \) -prune -exec rm -rf {} +
HATCH_BUILD_HOOK_ENABLE_CUSTOM=${COMPILED:-true} "$python" -m pip wheel --quiet --disable-pip-version-check --wheel-dir "$wheels" "$source"
rm -rf "$source"

say "stage base: installed where it will be"
chroot "$root" env -i HOME=/ PATH=/usr/sbin:/usr/bin:/sbin:/bin /bin/sh -ec '
  rm -rf /opt/mesh-proxy
  python3 -m venv /opt/mesh-proxy
  /opt/mesh-proxy/bin/pip install --quiet --disable-pip-version-check --no-index --find-links /wheels --compile mesh-proxy
  /opt/mesh-proxy/bin/pip uninstall --quiet --yes pip
  getent group istio-proxy >/dev/null || groupadd --gid 1337 istio-proxy
  getent passwd istio-proxy >/dev/null || useradd --uid 1337 --gid 1337 --no-create-home --home-dir / --shell /usr/sbin/nologin istio-proxy
  mkdir -p /etc/mesh
'
rm -rf "$wheels"
cp "$top/docker/compose/intercepting.yaml" "$root/etc/mesh/bootstrap.yaml"
chmod -R a+rX "$root/etc/mesh" "$root/opt/mesh-proxy"
du -sh "$root/opt/mesh-proxy" | sed 's/\t.*/ in \/opt\/mesh-proxy/'

say "a pod: init container, sidecar as user 1337 on a read-only root, without capabilities"
unshare --net --mount --pid --mount-proc --fork --kill-child sh -eu "$top/docker/rootfs-pod.sh" "$root"
say "done"
