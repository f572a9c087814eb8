# Sourced by quickstart.sh and test.sh: makes .venv in the repository and installs palm with the extras asked for.
# Usage: . scripts/environment.sh "plot,text,dev". PALM_PYTHON chooses the interpreter, PALM_VENV another folder.
# PALM_INSTALLED=1 uses the palm that is on the PATH already and installs nothing.

prepare_environment() {
    local extras=$1 root venv python stamp wanted
    if [ -n "${PALM_INSTALLED:-}" ]; then
        return 0
    fi
    root=$(pwd)
    venv=${PALM_VENV:-$root/.venv}
    python=${PALM_PYTHON:-python3}
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "palm: expected Python 3.11 or later, got $("$python" --version 2>&1); set PALM_PYTHON" >&2
        return 1
    }
    # What is installed is what pyproject.toml and the constraints said: when they change, it is installed again.
    wanted="$extras $(cat pyproject.toml scripts/constraints.txt | cksum)"
    stamp=$venv/.palm-installed
    if [ ! -f "$stamp" ] || ! grep -qxF "$wanted" "$stamp"; then
        echo "Installing palm[$extras] into ${venv#"$root"/} (once; a few minutes) ..."
        [ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || return 1
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c scripts/constraints.txt torch==2.13.0 || return 1
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c scripts/constraints.txt -e ".[$extras]" || return 1
        echo "$wanted" >>"$stamp"
    fi
    PATH=$venv/bin:$PATH
    export PATH
}
