# Builds the host with a cache that lies outside the clone, and copies what is finished into the clone.
#
# The cache is keyed by what decides whether compiled dependencies can be used again: Cargo.lock and the compiler. So
# fresh clones of one version share it, and a new lock file never meets the old one's leavings.

cache_root() {
    echo "${XDG_CACHE_HOME:-$HOME/.cache}/punktfunk"
}

# Exports CARGO_TARGET_DIR, unless the caller has chosen one.
use_build_cache() {
    if [ -z "${CARGO_TARGET_DIR:-}" ]; then
        local key
        key=$( (cat "$ROOT/Cargo.lock"; rustc -vV) | sha256sum | cut -c1-16)
        CARGO_TARGET_DIR=$(cache_root)/target-$key
    fi
    export CARGO_TARGET_DIR
    mkdir -p "$CARGO_TARGET_DIR"
    touch "$CARGO_TARGET_DIR"
    # Cargo tells our crates of two clones apart by the age of their files alone, so what another clone has built of them
    # could be taken for ours. The dependencies, which cost the time, stay.
    local clone
    clone="$ROOT $(stat -c %d:%i "$ROOT")"
    if [ "$(cat "$CARGO_TARGET_DIR/clone" 2>/dev/null)" != "$clone" ]; then
        (cd "$ROOT" && cargo clean --quiet --locked -p punktfunk-core -p punktfunk-agent -p punktfunk-launcher \
            -p punktfunk-os -p punktfunk-sound -p punktfunk-update -p punktfunk-update-rig -p punktfunk-publish \
            -p punktfunk-host)
        echo "$clone" >"$CARGO_TARGET_DIR/clone"
    fi
    # Caches that no build has touched for a month belong to lock files long gone.
    find "$(cache_root)" -maxdepth 1 -name 'target-*' -mtime +30 ! -path "$CARGO_TARGET_DIR" \
        -exec rm -rf {} + 2>/dev/null || :
}

# The finished binaries go to ./target/debug, where cargo would have put it.
publish_binaries() {
    mkdir -p "$ROOT/target/debug"
    local program
    for program in punktfunk-host punktfunk-agent punktfunk-launcher punktfunk-os punktfunk-sound punktfunk-update \
        punktfunk-publish; do
        install -m 0755 "$CARGO_TARGET_DIR/debug/$program" "$ROOT/target/debug/$program"
    done
}

build_host() {
    use_build_cache
    if [ ! -e "$CARGO_TARGET_DIR/debug/punktfunk-host" ]; then
        echo "Building the host. The first build compiles every dependency and takes several minutes."
    else
        echo "Building the host."
    fi
    # Whoever ends the script ends the compiler.
    (cd "$ROOT" && setpriv --pdeathsig=TERM cargo build --locked -p punktfunk-host -p punktfunk-agent \
        -p punktfunk-launcher -p punktfunk-os -p punktfunk-sound -p punktfunk-update -p punktfunk-publish)
    publish_binaries
}
