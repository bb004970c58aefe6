# Finds a Rust toolchain that is new enough, or installs Debian's.
#
# A toolchain that is there is used as it is; nothing here downloads one from elsewhere.

# The oldest Rust that builds the workspace, as Cargo.toml states it.
rust_wanted() {
    sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml"
}

# The version of the rustc on the PATH; empty if there is none.
rust_present() {
    command -v cargo >/dev/null || return 0
    rustc --version 2>/dev/null | sed -n 's/^rustc \([0-9.]*\).*/\1/p'
}

rust_is_new_enough() {
    local present
    present=$(rust_present)
    [ -n "$present" ] && printf '%s\n' "$(rust_wanted)" "$present" | sort -V -C
}

# Puts a toolchain on the PATH: the caller's own, then rustup's usual place, then Debian's.
need_rust() {
    rust_is_new_enough && return
    PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    rust_is_new_enough && return
    # A rustup that is too old would still come first, so Debian's is asked for by its folder.
    PATH="/usr/bin:$PATH"
    rust_is_new_enough && return
    local present
    present=$(rust_present)
    echo "Rust $(rust_wanted) or newer is needed, found: ${present:-none}. Taking Debian's."
    install_packages rust
    hash -r
    rust_is_new_enough || fail "Debian's rustc-web is $(rust_present), but $(rust_wanted) is needed." \
        "Newer ones come with Debian's security updates: is bookworm-security among the apt sources?"
}
