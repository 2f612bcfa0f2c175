//! The layer as clients see it: real sockets, one lane and its clients on one local runtime.

mod support;

mod accepting;
mod bodies;
mod framing;
mod gathering;
mod hibernation;
mod hostile;
mod leaving;
mod passing;
mod service;
mod shutdown;
mod streaming;
mod timeouts;
