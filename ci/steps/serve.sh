# Starts the finished host in the foreground, under a user who may do no more than the host needs.
#
# Root never runs the host. It makes a user without a login instead and hands over with no capability and no way to gain
# one. What root does run is the launcher, which starts games and desktops under users of their own, and this shell,
# which sees both off. For an ordinary user the last command is an `exec`: no shell stays behind.

SERVICE_USER=punktfunk
SERVICE_HOME=/var/lib/punktfunk
SERVICE_RUN=/run/punktfunk
SESSIONS_RUN=/run/punktfunk-sessions
AS_SERVICE_USER=(setpriv "--reuid=$SERVICE_USER" "--regid=$SERVICE_USER" --init-groups --inh-caps=-all
    --bounding-set=-all --no-new-privs --pdeathsig=TERM env -i PATH=/usr/local/bin:/usr/bin:/bin
    "HOME=$SERVICE_HOME/home" "USER=$SERVICE_USER" "LOGNAME=$SERVICE_USER" SHELL=/bin/bash LANG=C.UTF-8 "TERM=${TERM:-dumb}"
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
    install -m 0755 "$ROOT"/target/debug/punktfunk-{host,agent,launcher,sound} "$SERVICE_HOME/bin"
    local port=${PUNKTFUNK_GAMESTREAM__PORT:-47989}
    [[ "$port" =~ ^[0-9]{4,5}$ ]] || port=47989
    LAUNCHER=("$SERVICE_HOME/bin/punktfunk-launcher")
    # Numbers are enough for the users of sessions; no names are made for them.
    LAUNCHER_OPTIONS=(--daemon-uid "$(id -u "$SERVICE_USER")" --first-uid 61000 --profiles 64 --folder "$SESSIONS_RUN"
        --homes "$SERVICE_HOME/profiles" --agent "$SERVICE_HOME/bin/punktfunk-agent"
        --ports "$((port - 5)),$port,$((port + 1)),$((port + 9)),$((port + 10)),$((port + 11)),$((port + 21)),48100")
}

# What is open in this shell beside its own input and output would be open in every game.
close_descriptors() {
    local file number
    for file in /proc/"$BASHPID"/fd/*; do
        number=${file##*/}
        [ "$number" -le 2 ] || eval "exec $number>&-"
    done
}

# Runs the launcher, again whenever it dies: sessions go on meanwhile.
keep_launcher() {
    # Without job control, what is started in the background ignores Ctrl-C, and so would every program in a desktop.
    set -m
    trap 'kill "$launcher"; exit 0' TERM
    close_descriptors
    while :; do
        "${LAUNCHER[@]}" serve "${LAUNCHER_OPTIONS[@]}" &
        launcher=$!
        wait "$launcher" || :
        sleep 0.5
    done
}

serve_as_service_user() {
    prepare_service_user
    # The environment is emptied, but for the host's own settings.
    local settings=() keeper host status=0
    mapfile -t settings < <(env | grep -E '^(PUNKTFUNK_[A-Z0-9_]+|RUST_LOG|RUST_BACKTRACE)=' || :)
    settings+=("PUNKTFUNK_PROGRAM=$ROOT/target/debug/punktfunk-host" PUNKTFUNK_SESSIONS__ISOLATION=required
        "PUNKTFUNK_LAUNCHER__SOCKET=$SESSIONS_RUN/launcher.sock")
    cd "$SERVICE_HOME/home" || fail "$SERVICE_HOME/home cannot be entered."
    # Whatever a run that was killed has left.
    "${LAUNCHER[@]}" clear "${LAUNCHER_OPTIONS[@]}" || :
    # In process groups of their own: Ctrl-C comes to this shell, which ends the host first and the launcher after it.
    set -m
    keep_launcher </dev/null &
    keeper=$!
    for _ in {1..100}; do
        [ ! -S "$SESSIONS_RUN/launcher.sock" ] || break
        sleep 0.05
    done
    "${AS_SERVICE_USER[@]}" "${settings[@]}" "$SERVICE_HOME/bin/punktfunk-host" serve --foreground \
        --state-dir "$SERVICE_HOME/host" --socket "$SERVICE_RUN/host.sock" --owner-uid "${SUDO_UID:-0}" "$@" \
        </dev/null &
    host=$!
    # A signal is for the host; this shell stays until it has ended, and tidies up.
    trap 'kill -TERM "$host" 2>/dev/null' INT TERM HUP
    while kill -0 "$host" 2>/dev/null; do
        status=0
        wait "$host" || status=$?
    done
    kill -TERM "$keeper" 2>/dev/null || :
    wait "$keeper" || :
    "${LAUNCHER[@]}" clear "${LAUNCHER_OPTIONS[@]}" || :
    rmdir "$SESSIONS_RUN" 2>/dev/null || :
    exit "$status"
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
