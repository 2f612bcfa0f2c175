//! Every answer that the server itself gives when a request fails: made here and nowhere else.
//!
//! Short JSON, `{"detail":"Not Found"}`. Nothing of the request or of the failure gets into it.

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use super::body::Body;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The plain answer for `status`; its text is the standard reason.
#[must_use]
pub fn problem(status: StatusCode) -> Response<Body> {
    with_body(status, standard_body(status))
}

/// Like [`problem`], with a `detail` of the caller's own.
#[must_use]
pub fn problem_with_detail(status: StatusCode, detail: &str) -> Response<Body> {
    with_body(status, Bytes::from(detail_json(detail)))
}

/// Like [`problem`], and the connection is closed after it.
#[must_use]
pub fn closing_problem(status: StatusCode) -> Response<Body> {
    let mut response = problem(status);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// 405 with the methods that the path does answer.
#[must_use]
pub fn method_not_allowed(allow: HeaderValue) -> Response<Body> {
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(ALLOW, allow);
    response
}

/// 503 that asks the client to come back in a second.
#[must_use]
pub fn unavailable() -> Response<Body> {
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// The bytes of a closing answer, for a connection that has no HTTP state to write it with; `date`
/// is a whole header line, or nothing.
pub(crate) fn raw(status: StatusCode, date: &str) -> Vec<u8> {
    let reason = reason(status);
    let body = standard_body(status);
    let retry = if status == StatusCode::SERVICE_UNAVAILABLE { "retry-after: 1\r\n" } else { "" };
    let mut bytes = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         {retry}{date}connection: close\r\n\r\n",
        status.as_str(),
        body.len(),
    )
    .into_bytes();
    bytes.extend_from_slice(&body);
    bytes
}

fn with_body(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::Full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Error")
}

pub(crate) fn standard_body(status: StatusCode) -> Bytes {
    Bytes::from(detail_json(reason(status)))
}

fn detail_json(detail: &str) -> String {
    use std::fmt::Write as _;

    let mut json = String::with_capacity(detail.len() + 16);
    json.push_str("{\"detail\":\"");
    for character in detail.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            control if control < ' ' => {
                // Writing to a String cannot fail.
                let _ = write!(json, "\\u{:04x}", u32::from(control));
            }
            other => json.push(other),
        }
    }
    json.push_str("\"}");
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detail_is_the_standard_reason() {
        let response = problem(StatusCode::NOT_FOUND);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        let Body::Full(body) = response.into_body() else { panic!("not a full body") };
        assert_eq!(&body[..], br#"{"detail":"Not Found"}"#);
    }

    #[test]
    fn a_detail_is_escaped() {
        assert_eq!(detail_json("a\"b\\c\nd\u{e9}"), "{\"detail\":\"a\\\"b\\\\c\\u000ad\u{e9}\"}");
    }

    #[test]
    fn a_raw_answer_is_framed_and_closes() {
        let text = String::from_utf8(raw(StatusCode::SERVICE_UNAVAILABLE, "")).expect("ascii");
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(text.contains("retry-after: 1\r\nconnection: close\r\n\r\n{\"detail\""));
        let length = text.split("\r\n\r\n").nth(1).expect("a body").len();
        assert!(text.contains(&format!("content-length: {length}\r\n")));
    }
}
