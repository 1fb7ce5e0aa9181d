#!/bin/bash
# All checks and all tests. On a fresh Debian machine it installs what they need first (as root).
#   tests/run.sh [ARGUMENTS OF PYTEST]        such as --slow, -k gc, -n 0, tests/test_layout.py
#   tests/run.sh --fast [ARGUMENTS]           a minute: only tests that start nothing and are not long; no mypy, no coverage
# Without root, tests whose servers are missing are skipped, and it says so; with CI set, they fail.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/environment.sh

# Programs are started hundreds of times: compile their modules once.
unset PYTHONDONTWRITEBYTECODE
bin=.venv/bin

if [ "${1:-}" = --fast ]; then
  make_venv '[test,redis]'
  quietly "$bin/ruff" check .
  exec "$bin/python" -m pytest -n 2 --dist worksteal "$@" </dev/null
fi

servers=(docker-registry skopeo umoci podman buildah chromium ceph-mon ceph-osd radosgw ceph-common libgoogle-perftools4 redis-server curl docker-compose openjdk-17-jre-headless)

if ! need_packages "${servers[@]}"; then
  [ -z "${CI:-}" ] || fail "CI needs all of them"
  say "Going on: tests that need them are SKIPPED"
fi
make_venv '[test,redis]'

quietly "$bin/ruff" format --check . || fail "run $bin/ruff format"
quietly "$bin/ruff" check .
quietly "$bin/mypy"
coverage=(--cov --cov-report=term)
# A floor, of the whole suite with all its servers.
[ -z "${CI:-}" ] || [ $# != 0 ] || coverage+=(--cov-fail-under=91)
# A test that hangs says where, and ends its process; another goes on with the rest. With --slow some take long.
hang=(-o faulthandler_timeout=600 -o faulthandler_exit_on_timeout=true)
case " $* " in *" --slow "*) hang=() ;; esac
exec "$bin/python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "${hang[@]}" "${coverage[@]}" "$@" </dev/null
