//! What lanes and routes count: cheap enough to be always on. No Python here.
//!
//! # Who owns what
//!
//! A lane has one [`LaneMeter`], shared through an `Arc` by all that count on the lane and by those
//! who read. Only the lane's thread writes to it, so a [`Counter`] is a plain addition: a load and a
//! store that no other core takes part in, and no locked instruction. A reader on any thread sees
//! every counter as it stands, of a lane that never sleeps or that hangs too; two counters that are
//! read one after the other may be a few events apart.
//!
//! Durations are counted in the buckets of a histogram ([`tally`]), by the same rule: there is no
//! lock. The histogram itself is made of them for who reads.
//!
//! # Time
//!
//! Stamps are ticks of the [`Clock`] that the process was given: reading the time stamp counter
//! costs a third of asking the system. They become seconds only when somebody reads.

mod clock;
mod histogram;
mod meter;
mod registry;
mod route;
mod stages;
mod steps;
mod tally;
mod timing;

pub use clock::{Clock, Scale, Source};
pub use histogram::Durations;
pub use meter::{Attendance, Counter, LaneMeter};
pub use registry::{enroll, enrolled};
pub use route::{RouteMeter, RouteTimes};
pub use stages::{Stage, Stages};
pub use steps::{Step, Steps};
pub use timing::Timing;
