//! From a method and a path to a route. Pure Rust, no Python.
//!
//! [`pattern`] reads a route's pattern (`/users/{id:int}`) once, at registration; [`table`] holds
//! one path tree a method. Both are built before the lanes start and never change, so a lane reads
//! its own copy without locks. Patterns and requests meet in plain form ([`escapes`]).

mod escapes;
mod pattern;
mod table;

pub use escapes::{has_escape, plain};
pub use pattern::{Converter, Pattern, PatternError};
pub use table::{Conflict, Lookup, PathParams, Table, other_slash};
