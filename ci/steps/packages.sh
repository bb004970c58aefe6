# Installs the Debian packages that a list names and the machine lacks.
#
# Root installs directly, an ordinary user through sudo. Nothing is asked: the answer to every question is the default.

fail() {
    printf '\n%s\n' "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "\"$*\" needs root, and sudo is not installed. Run this as root."
    fi
}

# The names in the lists given, without comments, that are not installed.
missing_packages() {
    local name
    grep -hv '^#' "${@/%/.txt}" | while read -r name; do
        [ "$(dpkg-query -W -f='${db:Status-Abbrev}' "$name" 2>/dev/null)" = 'ii ' ] || echo "$name"
    done
}

# install_packages LIST..: each list is a file in ci/packages, named without its ending.
install_packages() {
    command -v apt-get >/dev/null || fail "This machine has no apt-get; the lists in ci/packages are for Debian 12."
    local missing
    missing=$(cd "$ROOT/ci/packages" && missing_packages "$@")
    [ -n "$missing" ] || return 0
    # shellcheck disable=SC2086 # one word a package
    set -- $missing
    echo "Installing $# Debian packages: $*"
    local log
    log=$(mktemp)
    if ! { as_root apt-get -qq -o DPkg::Lock::Timeout=120 update && as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq \
        -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@"; } </dev/null >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        fail "apt-get could not install: $*"
    fi
    rm -f "$log"
}
