//! Who the owner is, who may come in, and what each may do.

mod scope;

pub use scope::{Scope, Scopes};
