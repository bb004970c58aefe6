//! The engine on the system bus.
