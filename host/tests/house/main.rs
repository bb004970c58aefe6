//! The rules of the house, read off the tree: layers, absences, sizes, and what the documents promise.
//!
//! A rule is a pure function from text to complaints; one test feeds it the repository, another a text that breaks
//! it, so that no rule can fall asleep. Complaints name the file and say what to do instead.
//!
//! Deliberately absent: rules that need a compiler; clippy has those.

mod blocks;
mod conformance;
mod documents;
mod layers;
mod rules;
mod source;
mod tree;

/// Fails with all complaints at once, so that one run shows everything there is to mend.
#[track_caller]
fn assert_clean(rule: &str, complaints: &[String]) {
    assert!(
        complaints.is_empty(),
        "{rule}: {} complaint(s)\n  {}",
        complaints.len(),
        complaints.join("\n  ")
    );
}
