//! Answers that no handler makes: other methods, other slashes, values that do not fit.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method, Response, StatusCode};

use crate::http::{Body, problem};

/// 204 for OPTIONS and 405 for any other, with the methods that the path does answer.
pub(super) fn other_method(method: &Method, allow: &str) -> Response<Body> {
    let mut response = if method == Method::OPTIONS {
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    } else {
        problem(StatusCode::METHOD_NOT_ALLOWED)
    };
    if let Ok(allow) = HeaderValue::from_str(allow) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

/// 307, which keeps the method, to a path of this server.
pub(super) fn redirect(mut path: String, query: Option<&str>) -> Response<Body> {
    if let Some(query) = query {
        path.push('?');
        path.push_str(query);
    }
    let Ok(location) = HeaderValue::from_maybe_shared(Bytes::from(path)) else {
        return problem(StatusCode::NOT_FOUND);
    };
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(LOCATION, location);
    response
}

/// A JSON body that is encoded already.
pub(super) fn json(status: u16, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::Full(body));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
