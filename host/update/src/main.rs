//! `punktfunk-update`: root's service for updates on the system bus.

fn main() {}
