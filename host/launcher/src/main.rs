//! Starts punktfunk sessions under other users; the only part of the host that needs root.

fn main() {}
