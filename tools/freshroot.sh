#!/usr/bin/env bash
# Build the Debian of somebody who is new here, once per machine, as a tar: Python with venv, and the packages that Firkin needs at run
# time (tools/packages.txt); no cargo, no Firkin, no kernel. tests/packaging/test_fresh.py unpacks it. Prints the tar's path.
set -euo pipefail
cd "$(dirname "$0")/.."

images=${FIRKIN_TEST_IMAGES:-.build/images}
key=$(cat tools/freshroot.sh tools/packages.txt | sha256sum | cut -c1-16)
root=$images/fresh-root-$key.tar

command -v mmdebstrap >/dev/null || { echo "freshroot: mmdebstrap is missing: run tools/setup.sh tests" >&2; exit 1; }
mkdir -p "$images"
exec 9>"$images/.fresh-root.lock"
flock 9
if [ ! -e "$root" ]; then
  echo "freshroot: building $root" >&2
  sources=()
  for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    [ ! -s "$file" ] || sources+=("$file")
  done
  packages=$(sed -n '/^# at run time/,/^$/{s/#.*//; s/[[:space:]]*$//; /./p}' tools/packages.txt | paste -sd,)
  rm -f "$images"/fresh-root-*.tar
  mmdebstrap --quiet --variant=minbase --include="python3-venv,$packages" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    bookworm "$images/.fresh-root.tar" "${sources[@]}" </dev/null
  mv "$images/.fresh-root.tar" "$root"
fi
printf '%s\n' "$root"
