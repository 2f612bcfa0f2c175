//! From a method and a path to a route. Pure Rust, no Python.
//!
//! [`pattern`] reads a route's pattern (`/users/{id:int}`) once, at registration; [`table`] holds
//! one path tree a method. Both are built before the lanes start and never change, so a lane reads
//! its own copy without locks.

mod pattern;
mod table;

pub use pattern::{Converter, Pattern, PatternError};
pub use table::{Conflict, Lookup, PathParams, Table};
