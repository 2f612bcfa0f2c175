//! The load that `treadle profile` puts on a server: HTTP/1.1 clients that time their answers.
//!
//! Runs in a process of its own, on a current-thread runtime of its own. No Python here; the face
//! that Python sees is `load_face`.
//!
//! # Two ways to send
//!
//! - *Closed loop*: each of N connections sends its next request when the answer to the last one is
//!   whole. The server sets the pace: this measures how much it can do, and says little of latency,
//!   since a server that stalls is asked nothing meanwhile.
//! - *Open loop*: request number i is due at i / rate, whatever the server does. It goes out on the
//!   first connection that is free from then on, and its latency counts from when it was due. So a
//!   stall shows in every request that it held up, as it does to users (what is left out otherwise
//!   is known as coordinated omission). The time from the actual sending on is kept too, as
//!   *service time*.
//!
//! # What counts
//!
//! A request counts if it was due (closed loop: sent) after the warm-up and before the end of
//! sending. What is under way then is waited for during the grace period, and is `unfinished`
//! after it; what was due by then and never sent is `unsent`. Latencies are those of the expected
//! answers, all else is a failure of some [`FailureKind`]. Sums: due = completed + failed +
//! unfinished + unsent. *Slices* say what arrived when, so what was sent before the end of the
//! warm-up and arrived after it is in them, and what arrived after the end of sending is not.
//!
//! # Who owns what
//!
//! - [`run`](run()) owns the runtime and everything on it; all of it is of one thread, with `Rc` and
//!   `Cell`. The only thing shared with other threads is the [`Stop`].
//! - A worker (`worker`) is a task. It owns one connection (`client`), socket and hyper's state
//!   alike, and polls both itself: between a request and its answer lies no other task.
//! - `pace` owns the numbers of the requests and the workers that wait for one; `tally` what was
//!   seen. Both are bounded whatever the duration.

mod alarm;
mod choice;
mod client;
mod failure;
mod job;
mod pace;
mod report;
mod run;
mod schedule;
mod slices;
mod stop;
mod tally;
mod timing;
mod wire;
mod worker;

pub use failure::FailureKind;
pub use job::{Address, Job, LoadError, RequestSpec};
pub use report::{Ending, FailureReport, Phase, Progress, Report, RequestReport};
pub use run::run;
pub use slices::Slice;
pub use stop::Stop;
pub use timing::Distribution;
