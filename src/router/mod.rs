//! From a method and a path to a route. Pure Rust, no Python.
//!
//! [`pattern`] reads a route's pattern (`/users/{id:int}`) once, at registration; [`register`] refuses
//! what is alike. The [`table`] that it makes has path trees for each method ([`layers`]). It is built
//! before the lanes start and never changes, so a lane reads its own copy without locks. Patterns and
//! requests meet in plain form ([`escapes`]).

mod escapes;
mod layers;
mod pattern;
mod register;
mod table;

pub use escapes::{has_escape, plain};
pub use pattern::{Converter, Pattern, PatternError};
pub use register::{Conflict, Register};
pub use table::{Lookup, PathParams, Table, other_slash};
