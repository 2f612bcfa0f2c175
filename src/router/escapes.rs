//! The plain form of a path: what equivalent spellings of it have in common.
//!
//! `/caf%C3%A9`, `/caf%c3%a9` and `/café` are one path, as `/a:b` and `/a%3Ab` are, which is what
//! clients' quoting functions make of the former. So routes and requests are compared in a form with
//! as few escapes as can be (RFC 3986, 6.2.2, and beyond: escaped delimiters mean themselves, too).
//! What stays escaped, with upper-case digits:
//!
//! - `/`, which would separate segments, and `%`, which would begin an escape: to decode the plain
//!   form gives what to decode the path as sent gives, byte for byte, and segments stay segments;
//! - `{` and `}`, which mean parameters in the tree that plain patterns are put into;
//! - control characters, so that no code has to expect them in a path;
//! - bytes that are not UTF-8.
//!
//! A path without an escape is in plain form as it is, and costs a look for `%`.

use std::borrow::Cow;

use percent_encoding::percent_encode_byte;

/// `path`, a request's or the literal part of a pattern, in plain form.
#[must_use]
pub fn plain(path: &str) -> Cow<'_, str> {
    if has_escape(path) { Cow::Owned(unescaped(path)) } else { Cow::Borrowed(path) }
}

/// Whether there is a `%` in `text`. Eight bytes at a time: paths are too short for what searches in
/// longer steps, which has to find out first how to begin.
#[must_use]
pub fn has_escape(text: &str) -> bool {
    const ONES: u64 = u64::MAX / 0xff;
    let is_in = |word: &[u8; 8]| {
        // Zero where there is one, and the rest is the test for a word with a zero byte.
        let zero = u64::from_ne_bytes(*word) ^ (ONES * b'%' as u64);
        zero.wrapping_sub(ONES) & !zero & (ONES << 7) != 0
    };
    let bytes = text.as_bytes();
    match bytes.last_chunk() {
        // The last ones overlap those before.
        Some(last) => is_in(last) || bytes.as_chunks().0.iter().any(is_in),
        None => bytes.contains(&b'%'),
    }
}

#[cold]
fn unescaped(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        // One that begins no escape stands for itself, and must not begin one later.
        let mut byte = b'%';
        if let [high, low, behind @ ..] = behind
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            byte = high << 4 | low;
            rest = behind;
        }
        if byte.is_ascii_control() || matches!(byte, b'%' | b'/' | b'{' | b'}') {
            bytes.extend_from_slice(percent_encode_byte(byte).as_bytes());
        } else {
            bytes.push(byte);
        }
    }
    let mut plain = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        plain.push_str(chunk.valid());
        plain.extend(chunk.invalid().iter().map(|byte| percent_encode_byte(*byte)));
    }
    plain
}

fn digit(byte: u8) -> Option<u8> {
    // At most 15.
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;

    use super::*;

    #[test]
    fn an_escape_is_seen_wherever_it_is_and_nothing_else_is() {
        for length in 0..40 {
            let text: String = (0..length).map(|n| ['$', '&', '\u{5}', '¥', '/'][n % 5]).collect();
            assert!(!has_escape(&text), "{text}");
            for (at, _) in text.char_indices() {
                let (front, behind) = text.split_at(at);
                assert!(has_escape(&format!("{front}%{behind}")), "{front}%{behind}");
            }
        }
    }

    #[test]
    fn equivalent_spellings_have_one_plain_form() {
        for spelling in ["/café", "/caf%C3%A9", "/caf%c3%a9", "/%63af%C3%a9"] {
            assert_eq!(plain(spelling), "/café");
        }
        for (sent, expected) in [("/a%3Ab", "/a:b"), ("/x%7Ey", "/x~y"), ("/a%20b", "/a b")] {
            assert_eq!(plain(sent), expected);
        }
    }

    #[test]
    fn what_would_change_the_meaning_of_a_path_stays_escaped() {
        for (sent, expected) in [
            ("/a%2fb", "/a%2Fb"),
            ("/%2541", "/%2541"),
            ("/100%", "/100%25"),
            ("/%%34%31", "/%2541"),
            ("/%4", "/%254"),
            ("/%g0%+1", "/%25g0%25+1"),
            ("/%7bx%7d", "/%7Bx%7D"),
            ("/%00%0a%7f", "/%00%0A%7F"),
            ("/%ff%C3%28", "/%FF%C3("),
            ("/%c3é", "/%C3é"),
        ] {
            assert_eq!(plain(sent), expected);
        }
    }

    #[test]
    fn a_plain_form_decodes_to_the_same_bytes_has_the_same_segments_and_is_its_own_plain_form() {
        // All paths of five of these pieces.
        let pieces = ["%", "4", "1", "/", "%2F", "%25", "é", "%C3", "%a9", "\u{7f}"];
        for number in 0..pieces.len().pow(5) {
            let digits = (0..5).map(|place| number / pieces.len().pow(place) % pieces.len());
            let path: String = digits.map(|digit| pieces[digit]).collect();
            let plain_form = plain(&path);
            let bytes = |path: &str| percent_decode_str(path).collect::<Vec<u8>>();
            let segments = |path: &str| path.split('/').map(bytes).collect::<Vec<_>>();
            assert_eq!(segments(&plain_form), segments(&path), "{path}");
            assert_eq!(plain(&plain_form), plain_form, "{path}");
        }
    }
}
