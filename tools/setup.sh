#!/usr/bin/env bash
# Prepare a Debian 12 machine for Firkin: packages, a guest kernel (unpacked, not installed), a Rust toolchain.
# Idempotent: says and does nothing where all is there. Needs root only where something is missing.
#   tools/setup.sh          what running and building needs
#   tools/setup.sh tests    and what the tests need
set -euo pipefail
cd "$(dirname "$0")/.."

readonly kernels=/usr/local/share/firkin/kernel
readonly wanted_qemu=7.2
readonly policy=/usr/sbin/policy-rc.d
arch=$(dpkg --print-architecture)
updated=

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

need_root() {
  [ "$(id -u)" = 0 ] || die "$1 is missing: run tools/setup.sh as root, once"
}

apt_update() {
  [ -n "$updated" ] || apt-get -qq update
  updated=yes
}

# In a subshell, so that its trap ends with it. No package may start a service here: Firkin needs its programs only.
apt_install() (
  need_root "$*"
  say "installing $*"
  apt_update
  if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$@" </dev/null >/dev/null
)

# Each line of `dpkg-query` is a package that is fully installed; what the lists have beyond that is missing.
install_packages() {
  local missing=() lists=(tools/packages.txt)
  [ "$1" != tests ] || lists+=(tools/packages-tests.txt)
  mapfile -t missing < <(comm -23 \
    <(sed 's/#.*//; s/[[:space:]]*$//; /^$/d' "${lists[@]}" | sort -u) \
    <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p' | sort -u))
  [ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
}

# Figures are judged, and saved VMs tested, on Debian 12's QEMU.
check_qemu() {
  local version
  version=$(qemu-system-x86_64 --version | sed -n '1s/.*version \([0-9]*\.[0-9]*\).*/\1/p')
  [ "$version" = "$wanted_qemu" ] || [ -n "${FIRKIN_ANY_QEMU:-}" ] ||
    die "QEMU $version found, $wanted_qemu wanted (Debian 12's; FIRKIN_ANY_QEMU=1 to go on all the same)"
}

# In a subshell, so that its trap ends with it.
unpack_kernel() (
  compgen -G "$kernels/6.1*-cloud-$arch/boot/vmlinuz-*" >/dev/null && exit 0
  need_root "the guest kernel"
  apt_update
  package=$(apt-cache depends "linux-image-cloud-$arch" | sed -n 's/.*Depends: \(linux-image-6\.1[^ ]*\)$/\1/p' | head -n 1)
  [ -n "$package" ] || die "apt knows no linux-image-6.1*-cloud-$arch"
  release=${package#linux-image-}
  say "unpacking $package to $kernels"
  # apt downloads as the user _apt, into a folder that it must be able to write.
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  chmod 755 "$folder"
  chown _apt "$folder"
  (cd "$folder" && apt-get -qq download "$package" </dev/null)
  mkdir -p "$kernels"
  rm -rf "$kernels/.$release"
  dpkg -x "$folder"/*.deb "$kernels/.$release"
  rm -rf "$kernels/.$release/usr"
  chmod -R a+rX "$kernels/.$release"
  mv -T "$kernels/.$release" "$kernels/$release"
)

# Debian 12's own cargo (0.66) is older than the guest's edition; the one that its browsers are built with is not.
check_cargo() {
  PATH=$PATH:$HOME/.cargo/bin
  if ! command -v cargo >/dev/null; then
    apt_install cargo-web rustc-web rustfmt-web rust-web-clippy
  fi
  command -v cargo >/dev/null || die "cargo is missing: install a stable Rust toolchain (rustup)"
}

install_packages "${1:-}"
check_qemu
unpack_kernel
check_cargo
