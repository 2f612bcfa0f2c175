//! A response on its way from the service to hyper.
//!
//! Most responses are a status, a media type and bytes. Such a [`Plain`] stays small while it is
//! handed on, and becomes a response with headers where hyper takes it, in a header map that an
//! earlier request has left behind.

use http::{HeaderValue, Response, StatusCode};

use super::body::Body;

/// What a service answers with.
#[derive(Debug)]
pub enum Outgoing {
    /// No headers but the type of the content.
    Plain(Plain),
    /// Any other. Boxed, because it is handed on several times before it is sent.
    Built(Box<Response<Body>>),
}

/// A response without headers of its own.
#[derive(Debug)]
pub struct Plain {
    /// A final status.
    pub status: StatusCode,
    /// The value of `Content-Type`, if there is content.
    pub content_type: Option<&'static HeaderValue>,
    /// The content.
    pub body: Body,
}

impl Plain {
    /// The response, with headers.
    #[must_use]
    pub fn into_response(self) -> Response<Body> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        if let Some(content_type) = self.content_type {
            response.headers_mut().insert(http::header::CONTENT_TYPE, content_type.clone());
        }
        response
    }
}

impl From<Response<Body>> for Outgoing {
    fn from(response: Response<Body>) -> Self {
        Self::Built(Box::new(response))
    }
}

impl From<Box<Response<Body>>> for Outgoing {
    fn from(response: Box<Response<Body>>) -> Self {
        Self::Built(response)
    }
}

impl From<Plain> for Outgoing {
    fn from(plain: Plain) -> Self {
        Self::Plain(plain)
    }
}
