# Shell functions shared by the scripts of this folder. Source it: it changes to the repository's root.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

die() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}

# quietly LOG COMMAND...: the command's output goes to LOG and is shown (its end) only if it fails.
quietly() {
  local log=$1
  shift
  mkdir -p "$(dirname "$log")"
  if ! "$@" >"$log" 2>&1 </dev/null; then
    tail -n 80 "$log" >&2
    echo "failed: $* (whole output: $log)" >&2
    return 1
  fi
}

# packages_missing LIST...: the packages of ops/packages/LIST.txt that are not installed.
packages_missing() {
  local list name
  for list in "$@"; do
    sed -e 's/#.*//' -e 's/[[:space:]]//g' -e '/^$/d' "ops/packages/$list.txt"
  done | sort -u | while read -r name; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || echo "$name"
  done
}

# packages_install LIST...: installs what is missing of these lists, and nothing else.
packages_install() {
  command -v dpkg-query >/dev/null || die "not a Debian system: install what ops/packages/ lists by hand"
  local missing as_root=()
  mapfile -t missing < <(packages_missing "$@")
  [ "${#missing[@]}" -gt 0 ] || return 0
  if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null || die "missing packages, and neither root nor sudo; run as root:
  apt-get install --no-install-recommends ${missing[*]}"
    as_root=(sudo -n)
  fi
  echo "installing ${missing[*]}"
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300)
  quietly .cache/logs/apt-update.log "${apt[@]}" update &&
    quietly .cache/logs/apt-install.log "${apt[@]}" install --no-install-recommends "${missing[@]}"
}

# preset_build PRESET [cmake argument...]: configures and builds one of CMakePresets.json.
preset_build() {
  local preset=$1
  shift
  quietly ".cache/logs/configure-$preset.log" cmake --preset "$preset" "$@" &&
    quietly ".cache/logs/build-$preset.log" cmake --build --preset "$preset" -j "$(nproc)"
}
