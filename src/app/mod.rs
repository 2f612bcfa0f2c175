//! A handler's compiled plan: arguments in, response out.
//!
//! A [`Route`] is made once, when its handler is registered: [`param`] says where each argument
//! comes from and how it is converted, [`query`] reads query strings, [`scalar`] converts text, [`body`]
//! decodes JSON. Each lane takes a copy of all plans at start-up ([`Plan::for_lane`]), so that lanes do
//! not fight over the reference counts of what every request touches. [`respond`] turns what the
//! handler gave back into an HTTP response, and [`framing`] what its headers say of its length.
//!
//! [`Request`], [`Response`] and [`Headers`] are what Python code holds. They are plain values
//! behind locks that are never held while Python runs; the request's body stream belongs to the
//! lane that received it ([`reading`]).

mod body;
mod framing;
mod headers;
mod param;
mod plan;
mod problem;
mod query;
mod reading;
mod request;
mod respond;
mod response;
mod scalar;

pub use headers::Headers;
pub use param::Param;
pub use plan::{Arguments, Input, Mode, Plan, Route};
pub use problem::{Problem, Rejection};
pub use reading::{BodyState, BodyStream};
pub use request::{HeadRef, Request, RequestHead};
pub use respond::{Encoder, Reply};
pub use response::{HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse};
