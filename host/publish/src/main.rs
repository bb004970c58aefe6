//! `punktfunk-publish VERB ..`

fn main() {}
