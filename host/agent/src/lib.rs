//! Runs as a session's user: starts its programs and hands their sockets to the punktfunk host.
