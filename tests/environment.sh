# Sourced by run.sh and demo.sh, in the repository's root: Debian packages and the virtual environment.
# Quiet when all goes well; what fails is shown.

say() { printf '%s\n' "$*" >&2; }
fail() { say "$0: $*"; exit 1; }

# quietly COMMAND...: its output only when it fails
quietly() {
  local log code=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 </dev/null || code=$?
  [ "$code" = 0 ] || cat "$log" >&2
  rm -f "$log"
  return "$code"
}

apt() { DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 "$@"; }

# The lock on package lists is not waited for by apt itself.
apt_update() {
  local i
  for i in 1 2 3 4 5 6; do
    quietly apt update && return 0
    sleep 10
  done
  return 1
}

# Installing a server must not start it: a policy that says so, unless the machine has its own.
apt_install() {
  local policy=/usr/sbin/policy-rc.d ours=0 code=0
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && ours=1
  fi
  quietly apt install --no-install-recommends "$@" || code=$?
  [ "$ours" = 0 ] || rm -f "$policy"
  return "$code"
}

# missing_packages NAME...: those that are not installed
missing_packages() {
  local name
  for name in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null || true)" = installed ] || printf '%s ' "$name"
  done
}

# need_packages NAME...: install what is missing; 1 when that cannot be done
need_packages() {
  local missing
  missing=$(missing_packages "$@")
  [ -n "$missing" ] || return 0
  if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    say "MISSING, and only root can install them (apt-get install $missing)"
    return 1
  fi
  say "Installing $missing"
  # shellcheck disable=SC2086  # a list of names
  apt_update && apt_install $missing
}

# The first Python that is new enough and can make virtual environments.
find_python() {
  local candidate
  for candidate in python3.11 python3 python3.14 python3.13 python3.12; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s' "$candidate"
      return 0
    fi
  done
  return 1
}

# make_venv [EXTRAS]: .venv with this project in it; made again only when pyproject.toml or Python has changed, or
# when it has not these extras
make_venv() {
  local extras=${1:-} python facts stamp
  if ! python=$(find_python); then
    need_packages python3 python3-venv || true
    python=$(find_python) || fail "needs Python 3.11 or newer, with its venv module (Debian: python3-venv)"
  fi
  facts="$(sha256sum pyproject.toml | cut -d' ' -f1) $("$python" -V)"
  stamp=$(cat .venv/stamp 2>/dev/null || true)
  if [ "$stamp" = "$facts $extras" ] || { [ -z "$extras" ] && [ "${stamp% *}" = "$facts" ]; }; then
    .venv/bin/python -c 'import regstore' 2>/dev/null && return 0
  fi
  say "Making .venv"
  [ "$(.venv/bin/python -V 2>/dev/null || true)" = "$("$python" -V)" ] || quietly "$python" -m venv --clear .venv
  quietly .venv/bin/python -m pip install --disable-pip-version-check -e ".$extras"
  printf '%s\n' "$facts $extras" >.venv/stamp
}
