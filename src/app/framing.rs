//! What a handler's headers say of where its message ends, and what of it is believed.
//!
//! The connection frames every message. A handler knows one thing better: how long a body is that
//! is not there yet, or never will be (the answer to a HEAD).

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue};

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Takes off what is the connection's to say. A handler may ask for its end, and for nothing else.
pub fn strip(headers: &mut HeaderMap) {
    headers.remove(TRANSFER_ENCODING);
    if !headers.contains_key(CONNECTION) {
        return;
    }
    let closes = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"));
    headers.remove(CONNECTION);
    if closes {
        headers.insert(CONNECTION, CLOSE);
    }
}

/// The length that the headers declare.
///
/// # Errors
/// What is wrong with it: no number, or several.
pub fn length(headers: &HeaderMap) -> Result<Option<u64>, String> {
    let mut declared = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        // Digits alone: the parser of numbers takes a sign.
        let parsed = value
            .to_str()
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse::<u64>().ok())
            .ok_or_else(|| format!("Content-Length {value:?} is no length"))?;
        if *declared.get_or_insert(parsed) != parsed {
            return Err("there are several Content-Lengths, and they differ".to_owned());
        }
    }
    Ok(declared)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for &(name, value) in pairs {
            map.append(name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn a_length_is_digits_and_the_same_everywhere() {
        let of = |values: &[&'static str]| {
            let pairs: Vec<_> = values.iter().map(|&value| ("content-length", value)).collect();
            length(&headers(&pairs))
        };
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&["0"]), Ok(Some(0)));
        assert_eq!(of(&["5", "5"]), Ok(Some(5)));
        for wrong in ["", "abc", "-1", "+5", "5, 5", " 5", "5.0", "0x5", "18446744073709551616"] {
            assert!(of(&[wrong]).is_err(), "{wrong:?}");
        }
        assert!(of(&["5", "6"]).is_err());
    }

    #[test]
    fn of_connection_only_close_is_left() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let mut map = headers(pairs);
            strip(&mut map);
            map.get_all("connection").iter().cloned().collect::<Vec<_>>()
        };
        assert_eq!(of(&[("x", "close")]), Vec::<HeaderValue>::new());
        assert_eq!(of(&[("connection", "upgrade")]), Vec::<HeaderValue>::new());
        assert_eq!(of(&[("connection", "Close")]), ["close"]);
        assert_eq!(of(&[("connection", "upgrade, close")]), ["close"]);
        assert_eq!(of(&[("connection", "upgrade"), ("connection", "close")]), ["close"]);
    }
}
