//! What a request's head must be beyond what hyper's parser asks for.
//!
//! One pass over the headers, before the service sees the request. What fails is answered and the
//! connection is closed: whoever sent it may disagree with us about where the next request starts.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, Version};

use super::chunks::{Scanned, scan_behind_head};
use super::io::Transport;

/// The status to refuse a request with, or `None` if it may go on.
pub(crate) fn refusal(head: &Parts, transport: &Transport) -> Option<StatusCode> {
    if let Some(status) = target_refusal(head) {
        return Some(status);
    }
    let mut hosts = 0_usize;
    let mut codings = 0_usize;
    for (name, value) in &head.headers {
        if *name == HOST {
            hosts += 1;
            if !is_host(value) {
                return Some(StatusCode::BAD_REQUEST);
            }
        } else if *name == CONTENT_LENGTH {
            if repeats_content_length(transport, value) {
                return Some(StatusCode::BAD_REQUEST);
            }
        } else if *name == TRANSFER_ENCODING {
            codings += 1;
            // hyper is content when chunked comes last; nothing here would undo what comes first.
            if codings > 1 || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Some(StatusCode::NOT_IMPLEMENTED);
            }
            if begins_with_malformed_chunk(transport, value) {
                return Some(StatusCode::BAD_REQUEST);
            }
        }
    }
    let missing_host = hosts == 0 && head.version == Version::HTTP_11;
    (hosts > 1 || missing_host).then_some(StatusCode::BAD_REQUEST)
}

/// Origin form, absolute form, and `*` for OPTIONS. A tunnel is not ours to make, for any resource, and
/// an authority alone names none.
fn target_refusal(head: &Parts) -> Option<StatusCode> {
    let path = head.uri.path();
    if head.method == Method::CONNECT {
        Some(StatusCode::NOT_IMPLEMENTED)
    } else if path.starts_with('/') || (path == "*" && head.method == Method::OPTIONS) {
        None
    } else {
        Some(StatusCode::BAD_REQUEST)
    }
}

/// Whether `value` can be a host and port. It goes into URLs: what could change the meaning of one
/// (a slash, an at sign, a space) is no host.
fn is_host(value: &HeaderValue) -> bool {
    // Without a way out in the middle: hosts are short, and nearly all of them pass.
    value.as_bytes().iter().fold(true, |fits, &byte| fits & HOST_BYTES[byte as usize])
}

static HOST_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let allowed =
        b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%!$&'()*+,;=:[]";
    let mut index = 0;
    while index < allowed.len() {
        table[allowed[index] as usize] = true;
        index += 1;
    }
    table
};

/// Whether the head goes on behind `value`, the length of its body, to say the length again. hyper
/// has merged equal ones by then, so this looks at the received bytes. Where they are gone the answer
/// is no, which is what hyper and RFC 9110, 8.6 make of equal lengths anyway.
fn repeats_content_length(transport: &Transport, value: &HeaderValue) -> bool {
    transport.look_from(value, goes_on_to_content_length).unwrap_or(false)
}

/// Whether a line in front of a chunk is malformed in what has arrived with the head that says with
/// `value` that there are chunks. What arrives later is looked at then. Where the received bytes
/// are gone this body is hyper's alone, which frames it all the same; nothing follows it then.
fn begins_with_malformed_chunk(transport: &Transport, value: &HeaderValue) -> bool {
    match transport.look_from(value, scan_behind_head) {
        Some(Scanned::GoesOn(lines)) => {
            transport.follow_chunks(lines);
            false
        }
        Some(Scanned::Malformed) => true,
        Some(Scanned::Ended) => false,
        None => {
            transport.info.is_unseen.set(true);
            false
        }
    }
}

/// The line that `head` starts with, as far as it has arrived, and its end.
pub(crate) fn request_line(head: &[u8]) -> &[u8] {
    let start = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(head.len());
    let line = &head[start..];
    memchr::memchr(b'\n', line).map_or(line, |end| &line[..=end])
}

/// Whether `head`, which is refused for its version, names one all the same: `HTTP/1.2`, not
/// `HTTP/x`. It is refused as soon as that is clear, so the last digit may still be on its way.
pub(crate) fn names_version(head: &[u8]) -> bool {
    let line = request_line(head);
    let (line, is_whole) = line.strip_suffix(b"\n").map_or((line, false), |line| (line, true));
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.split(|&byte| byte == b' ').skip(2);
    let (Some(version), None) = (words.next(), words.next()) else { return false };
    match version.strip_prefix(b"HTTP/") {
        Some([major, b'.', minor]) => major.is_ascii_digit() && minor.is_ascii_digit(),
        Some([major] | [major, b'.']) => !is_whole && major.is_ascii_digit(),
        _ => false,
    }
}

/// Whether a further `Content-Length` line follows in the head that `bytes` starts in the middle
/// of a line of.
fn goes_on_to_content_length(bytes: &[u8]) -> bool {
    const NAME: &[u8] = b"content-length:";

    let mut rest = bytes;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        rest = &rest[end + 1..];
        if matches!(rest, [b'\n', ..] | [b'\r', b'\n', ..]) {
            return false;
        }
        if rest.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_length_is_found_up_to_the_end_of_the_head() {
        assert!(goes_on_to_content_length(b"5\r\nX: y\r\ncOntent-Length: 5\r\n\r\n"));
        assert!(goes_on_to_content_length(b"5\nContent-Length:5\n\n"));
        assert!(!goes_on_to_content_length(b"5\r\nX: y\r\n\r\ncontent-length: 5\r\n\r\n"));
        assert!(!goes_on_to_content_length(b"5\r\nX-Content-Length: 5\r\n\r\n"));
        assert!(!goes_on_to_content_length(b"5"));
    }

    #[test]
    fn a_version_is_two_digits() {
        for head in [
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            "\r\n\nGET / HTTP/9.9\n\n",
            "GET / HTTP/2.0",
            "GET / HTTP/2.",
            "GET / HTTP/2",
        ] {
            assert!(names_version(head.as_bytes()), "{head:?}");
        }
        for head in [
            "GET / HTTP/2\r\n",
            "GET / HTTP/2.\r\n",
            "GET / HTTP/1.20\r\n",
            "GET / HTTP/a.b\r\n",
            "GET / HTTP/1,2\r\n",
            "GET / http/2.0\r\n",
            "GET / x HTTP/2.0\r\n",
            "GET / HTTP/2.0 x\r\n",
            "GET / HTTP/2.0\r\r\n",
            "GET\r\n/ x HTTP/2.0\r\n",
            "\r\n",
            "",
        ] {
            assert!(!names_version(head.as_bytes()), "{head:?}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        for host in ["", "example.org", "localhost:8000", "[::1]:80", "a_b.example"] {
            let value = HeaderValue::from_str(host).expect("a header value");
            assert!(is_host(&value), "{host}");
        }
        for host in ["a/b", "user@host", "a b", "a?b", "a#b", "a\\b", "<a>"] {
            let value = HeaderValue::from_str(host).expect("a header value");
            assert!(!is_host(&value), "{host}");
        }
    }
}
