//! A box in a folder, for tests: a sysroot with OSTree's real program, a boot partition, a private bus, the real service on
//! it, keys, and a place from which signed releases come.
