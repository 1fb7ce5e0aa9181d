#!/bin/bash
# A small registry in a temporary folder, and a walk through it. Sets up all it needs first.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/environment.sh

make_venv
exec .venv/bin/regstore demo "$@"
