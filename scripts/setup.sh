#!/bin/sh
# Makes .venv with everything that Perseid, its demo and its tests need. Runs again only when the locked versions change.
set -eu
cd "$(dirname "$0")/.."

lock=requirements/cpu.txt
stamp=.venv/.installed
want=$(cat "$lock" pyproject.toml | cksum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
    exit 0
fi

if ! python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'; then
    echo "Perseid needs Python 3.11 or 3.12, but python3 is $(python3 --version 2>&1); install one and put it first in PATH" >&2
    exit 2
fi

# uv resolves and installs several times faster than pip. It goes into the environment itself, not into the system.
if command -v uv >/dev/null 2>&1; then
    uv=uv
else
    tools=.venv-tools
    if ! { python3 -m venv "$tools" 2>/dev/null && "$tools/bin/pip" install --quiet 'uv>=0.8'; }; then
        rm -rf "$tools"
        if ! python3 -m pip install --quiet --target "$tools" 'uv>=0.8'; then
            echo "cannot install uv: python3 has neither venv nor pip; on Debian or Ubuntu: apt-get install python3-venv" >&2
            exit 2
        fi
    fi
    uv=$tools/bin/uv
fi

[ -x .venv/bin/python ] || "$uv" venv --quiet --python "$(command -v python3)" .venv
# Compiled now and once: where Python may not write bytecode, each of the many processes of a run or a test would compile
# torch, transformers, vLLM and KFP again, which takes it ten seconds and more.
"$uv" pip sync --quiet --compile-bytecode --python .venv/bin/python --require-hashes "$lock"
"$uv" pip install --quiet --python .venv/bin/python --no-deps --editable .
echo "$want" >"$stamp"
