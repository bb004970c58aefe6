# Starts the finished host in the foreground, under a user who may do no more than the host needs.
#
# The last command is an `exec`: Ctrl-C and SIGTERM reach the host itself, and no shell stays behind. Root never runs
# the host. It makes a user without a login instead and hands over with no capability and no way to gain one.

SERVICE_USER=punktfunk
SERVICE_HOME=/var/lib/punktfunk
SERVICE_RUN=/run/punktfunk
AS_SERVICE_USER=(setpriv "--reuid=$SERVICE_USER" "--regid=$SERVICE_USER" --init-groups --inh-caps=-all
    --bounding-set=-all --no-new-privs env -i PATH=/usr/local/bin:/usr/bin:/bin "HOME=$SERVICE_HOME/home"
    "USER=$SERVICE_USER" "LOGNAME=$SERVICE_USER" SHELL=/bin/bash LANG=C.UTF-8 "TERM=${TERM:-dumb}"
    "XDG_RUNTIME_DIR=$SERVICE_RUN/runtime")

# What the host's user may write lies below folders that only root may change, and what lies below a folder of the
# host's user is made by that user: root follows no link that it could have laid.
prepare_service_user() {
    if ! getent passwd "$SERVICE_USER" >/dev/null; then
        echo "Creating the system user $SERVICE_USER"
        useradd --system --user-group --home-dir "$SERVICE_HOME" --no-create-home --shell /usr/sbin/nologin \
            "$SERVICE_USER"
    fi
    install -d -m 0755 "$SERVICE_HOME" "$SERVICE_HOME/bin"
    install -d -m 0700 -o "$SERVICE_USER" -g "$SERVICE_USER" "$SERVICE_HOME/host" "$SERVICE_HOME/home"
    install -d -m 0755 -o "$SERVICE_USER" -g "$SERVICE_USER" "$SERVICE_RUN"
    "${AS_SERVICE_USER[@]}" install -d -m 0700 "$SERVICE_RUN/runtime"
    install -m 0755 "$ROOT/target/debug/punktfunk-host" "$ROOT/target/debug/punktfunk-agent" "$SERVICE_HOME/bin"
}

serve_as_service_user() {
    prepare_service_user
    # The environment is emptied, but for the host's own settings.
    local settings=()
    mapfile -t settings < <(env | grep -E '^(PUNKTFUNK_[A-Z0-9_]+|RUST_LOG|RUST_BACKTRACE)=' || :)
    settings+=("PUNKTFUNK_PROGRAM=$ROOT/target/debug/punktfunk-host")
    cd "$SERVICE_HOME/home" || fail "$SERVICE_HOME/home cannot be entered."
    exec "${AS_SERVICE_USER[@]}" "${settings[@]}" "$SERVICE_HOME/bin/punktfunk-host" serve --foreground \
        --state-dir "$SERVICE_HOME/host" --socket "$SERVICE_RUN/host.sock" --owner-uid "${SUDO_UID:-0}" "$@"
}

serve_as_myself() {
    local where=()
    if [ ! -w "${XDG_RUNTIME_DIR:=/run/user/$(id -u)}" ]; then
        # Without a login session there is no runtime folder of one's own; this one is found without arguments too.
        as_root install -d -m 0700 -o "$(id -u)" -g "$(id -g)" "$SERVICE_RUN"
        XDG_RUNTIME_DIR=$SERVICE_RUN
        where=(--socket "$SERVICE_RUN/host.sock")
    fi
    export XDG_RUNTIME_DIR
    exec "$ROOT/target/debug/punktfunk-host" serve --foreground "${where[@]}" "$@"
}
