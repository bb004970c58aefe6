//! What the fuzz targets do with their input: the bodies that `core/tests/corpus.rs` replays, under the same names.

#[path = "../../tests/bodies/mod.rs"]
mod bodies;

/// Tries one input on the body of this name.
pub fn try_on(name: &str, input: &[u8]) {
    bodies::body(name)(input);
}
