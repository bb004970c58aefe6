//! What systemd-boot makes of the entries: which one it starts, and what becomes of the count.
//!
//! spec: UAPI boot loader specification, "Sorting" and "Boot counting"; systemd-boot(7).

use std::cmp::Reverse;

use super::entry::Entry;
use super::esp::Esp;
use super::name::EntryName;

/// The order in which the loader lists our entries: those without tries left come last, then by sort key, then the
/// highest version, then the highest name. An entry that cannot be read is not listed.
pub fn order(esp: &Esp) -> Vec<EntryName> {
    let listed = esp.entries.iter().filter_map(|(name, text)| Some((name, Entry::parse(text)?)));
    let mut listed: Vec<(&EntryName, Entry)> = listed.collect();
    listed.sort_by_key(|(name, entry)| {
        let spent = name.counter.is_some_and(|counter| counter.left == 0);
        (spent, entry.last, Reverse(entry.version), Reverse(name.id.to_string()), name.counter)
    });
    listed.into_iter().map(|(name, _)| name.clone()).collect()
}

/// What the next start takes, if nobody chooses by hand.
pub fn choice(esp: &Esp) -> Option<EntryName> {
    order(esp).into_iter().next()
}

/// The name of an entry once the loader has started it.
pub fn started(name: &EntryName) -> EntryName {
    EntryName { id: name.id.clone(), counter: name.counter.map(super::Counter::tried) }
}
