//! What a box does for its updates, one thing after the other.
