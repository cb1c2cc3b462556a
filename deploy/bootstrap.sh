#!/bin/sh
# Creates .venv with Python 3.11 or newer (by uv if it is installed, else by venv and pip) and installs a lock file.
#
#   deploy/bootstrap.sh host     what `make up` needs
#   deploy/bootstrap.sh dev      the same, and what `make test` and `make lint` need
#   deploy/bootstrap.sh vision   what models that see need in addition to `host`
#
# Runs with macOS's own /bin/sh and tools. It is safe to run again: a checksum of the lock records what is installed.
set -eu

wanted="${1:-host}"
root="$(cd "$(dirname "$0")/.." && pwd)"
venv="$root/.venv"
lock="$root/requirements/$wanted.lock"
stamp="$venv/.vestal-$wanted"

say() { printf '%s\n' "vestal: $*" >&2; }
fail() { say "$*"; exit 69; }

# Covers the lock, the metadata, this script and the folder, because a virtual environment cannot be moved.
fingerprint() { { cat "$lock" "$root/pyproject.toml" "$root/deploy/bootstrap.sh"; printf '%s' "$root"; } | cksum; }

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

runs_natively() {
    # Under Rosetta an Intel Python reports x86_64 on an Apple chip and cannot load MLX.
    [ "$(uname -s)" != Darwin ] && return 0
    [ "$(sysctl -n hw.optional.arm64 2>/dev/null || echo 0)" != 1 ] && return 0
    "$1" -c 'import platform, sys; sys.exit(platform.machine() != "arm64")' >/dev/null 2>&1
}

find_python() {
    intel_found=""
    for name in ${VESTAL_PYTHON:+"$VESTAL_PYTHON"} python3.13 python3.12 python3.11 python3 python3.14 \
                /opt/homebrew/bin/python3 /usr/local/bin/python3; do
        path="$(command -v "$name" 2>/dev/null)" || continue
        is_new_enough "$path" || continue
        if runs_natively "$path"; then printf '%s' "$path"; return 0; fi
        intel_found="$path"
    done
    [ -n "$intel_found" ] && say "$intel_found is an Intel build running under Rosetta; MLX needs an arm64 Python"
    return 1
}

make_venv_with_uv() {
    uv venv --quiet --seed --python "$1" "$venv" && runs_natively "$venv/bin/python"
}

make_venv() {
    if [ -x "$venv/bin/python" ] && is_new_enough "$venv/bin/python" && runs_natively "$venv/bin/python" \
            && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        return 0
    fi
    rm -rf "$venv"
    if command -v uv >/dev/null 2>&1; then
        say "making .venv with uv"
        make_venv_with_uv '>=3.11,<3.14' && return 0
        if [ -x "$venv/bin/python" ] && ! runs_natively "$venv/bin/python"; then
            say "uv chose an Intel Python, which cannot load MLX; asking it for an arm64 one"
            rm -rf "$venv"
            make_venv_with_uv cpython-3.12-macos-aarch64-none && return 0
        fi
        say "uv could not make it; trying Python's own venv"
        rm -rf "$venv"
    fi
    python="$(find_python)" || fail "no Python 3.11 or newer was found. Install one (macOS: brew install python@3.12; Debian: apt install python3 python3-venv), or install uv, then run this again. VESTAL_PYTHON names one that is elsewhere."
    say "making .venv with $python"
    if ! "$python" -m venv "$venv"; then
        rm -rf "$venv"
        fail "$python cannot make a virtual environment (Debian: apt install python3-venv)"
    fi
}

# pip prints nothing or very much. So its output goes to a file, and the user sees a line of progress.
pip_install() {
    log="$venv/install.log"
    total="$(grep -c '^[a-z0-9].*==' "$lock")"
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off \
        --no-deps --require-hashes -r "$lock" >"$log" 2>&1 &
    pip=$!
    trap 'kill "$pip" 2>/dev/null; exit 130' INT TERM
    shown=""
    while kill -0 "$pip" 2>/dev/null; do
        if grep -q '^Installing collected' "$log"; then
            now="unpacking"
        else
            now="fetched $(grep -c '^Collecting' "$log") of at most $total packages"
        fi
        [ "$now" != "$shown" ] && say "  $now" && shown="$now"
        sleep 2
    done
    trap - INT TERM
    wait "$pip" && return 0
    grep -i 'error' "$log" | tail -n 5 >&2
    say "all that pip said is in $log"
    return 1
}

install_lock() {
    [ "$wanted" = vision ] && size="some 11 MB" || size="some 250 MB the first time"
    say "installing from requirements/$wanted.lock ($size)"
    # The locks are complete. What mlx-vlm lists beyond them is not installed: docs/decisions/0028.
    if command -v uv >/dev/null 2>&1; then
        uv pip install --python "$venv/bin/python" --no-deps --require-hashes -r "$lock"
    else
        pip_install
    fi || {
        why="the packages could not be installed; the lines above say why. Most often there is no network to a package index."
        [ "$wanted" = vision ] && fail "$why"
        fail "$why Nothing was started; run the same command again once there is."
    }
    # Install the project itself by a .pth file: without a build, nothing beyond the lock is downloaded.
    site="$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    printf '%s\n' "$root" > "$site/vestal.pth"
    # `#!` takes no path with a blank in it, and none over 127 to 255 bytes. So sh starts Python with this file, and
    # to Python the lines between the ''' are a text. pip writes its scripts in the same way.
    quoted="$(printf '%s' "$venv/bin/python" | sed "s/'/'\"'\"'/g")"
    cat > "$venv/bin/vestal" <<EOF
#!/bin/sh
'''exec' '$quoted' "\$0" "\$@"
' '''
import sys
from host_agent.cli.main import main
sys.exit(main())
EOF
    chmod +x "$venv/bin/vestal"
}

[ -f "$lock" ] || fail "there is no $lock"
# Whoever asks for `vision` has seen that some of it is missing. The Python that .venv links to may have been removed,
# by an upgrade for example.
if [ "$wanted" != vision ] && [ -x "$venv/bin/python" ] && [ -x "$venv/bin/vestal" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint)" ]; then
    exit 0
fi
make_venv
install_lock
if [ "$wanted" != vision ] && [ "$(uname -s)" = Linux ]; then
    say "building what engines compute with on this processor"
    # If that fails, the first engine tries again, and says why it cannot.
    (cd "$root" && "$venv/bin/python" -m mlx_server.prepare_host) >/dev/null 2>&1 || :
fi
[ "$wanted" = vision ] || fingerprint > "$stamp"
[ "$wanted" = dev ] && { wanted=host; lock="$root/requirements/host.lock"; fingerprint > "$venv/.vestal-host"; }
say "the environment is ready: .venv"
