#!/usr/bin/env bash
# Build the images that tests share, once per machine, as OCI layouts: debian (minbase), debian-python, and busybox-arm64 of
# another architecture.
# .build/images/<name> is a link to .build/images/<key>/<name>; the key is the hash of this script. Tests only read them.
# FIRKIN_TEST_IMAGES names another folder, which several checkouts can share.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly suite=bookworm
images=${FIRKIN_TEST_IMAGES:-.build/images}
key=$(sha256sum tools/testimages.sh | cut -c1-16)

die() { printf 'testimages: %s\n' "$*" >&2; exit 1; }

# A Debian root as a tar at $1, with the packages $2 added, from wherever this machine's apt gets its own. Given another
# architecture $3, only the files of those packages: nothing of it is run, so no emulator is needed.
debootstrap() {
  local sources=() file variant=(--variant=minbase)
  for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    [ ! -s "$file" ] || sources+=("$file")
  done
  [ -z "$3" ] || variant=(--variant=extract --architectures="$3" --skip=check/qemu)
  mmdebstrap --quiet "${variant[@]}" ${2:+--include="$2"} \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    "$suite" "$1" "${sources[@]}" </dev/null
}

# An OCI layout $1 of the root tar $2, whose command is $3, for the architecture $4, empty for this machine's.
layout() {
  umoci init --layout "$1"
  umoci new --image "$1:latest"
  umoci raw add-layer --image "$1:latest" "$2"
  umoci config --image "$1:latest" ${4:+--architecture="$4"} --config.cmd "$3" --config.workingdir / \
    --config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  umoci gc --layout "$1"
}

# The image $1: its command $2, the packages $3, another architecture $4 (arm64 is both Debian's and OCI's name).
image() {
  local folder=$images/$key/$1 scratch
  if [ ! -e "$folder" ]; then
    printf 'testimages: building %s\n' "$1" >&2
    scratch=$(mktemp -d "$images/.$1.XXXXXX")
    debootstrap "$scratch/root.tar" "$3" "$4"
    layout "$scratch/layout" "$scratch/root.tar" "$2" "$4"
    # skopeo reads what umoci wrote: a layout that only its own writer understands is no test image.
    skopeo inspect --raw "oci:$scratch/layout:latest" >/dev/null
    # umoci keeps index.json to its user; tests of an unprivileged user read it too.
    chmod -R a+rX "$scratch/layout"
    mv -T "$scratch/layout" "$folder"
    rm -rf "$scratch"
  fi
  ln -sfn "$key/$1" "$images/$1"
}

for tool in mmdebstrap umoci skopeo; do
  command -v "$tool" >/dev/null || die "$tool is missing: run tools/setup.sh"
done
mkdir -p "$images/$key"
exec 9>"$images/.lock"
flock 9
find "$images" -mindepth 1 -maxdepth 1 -type d ! -name "$key" -exec rm -rf {} +
image debian bash "" ""
image debian-python python3 python3 ""
image busybox-arm64 /bin/busybox busybox-static arm64
