//! The lines in front of a body's chunks, looked at for what hyper's decoder lets pass.
//!
//! Behind a chunk's size it takes everything up to the end of the line for an extension, which it
//! ignores; control characters are in none (RFC 9112, 7.1.1), and another recipient may stop at one.
//! So the received bytes are followed from chunk to chunk, from the end of the head on. Data is
//! skipped by its length. All that hyper refuses anyway is left to it.

/// Where in a chunked body the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunkLines {
    /// In the size, which is this so far.
    Size(u64),
    /// Behind the size.
    Extension(u64),
    /// In a chunk's data or the end of its line; so many bytes are left of both.
    Data(u64),
}

/// What some bytes of a chunked body were.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Scanned {
    /// Fine; more of the body is to come.
    GoesOn(ChunkLines),
    /// Fine; the last chunk has begun, or hyper will refuse what there is.
    Ended,
    /// A control character is in an extension.
    Malformed,
}

/// Looks at what has arrived of a body, given the bytes from somewhere in its head on.
pub(crate) fn scan_behind_head(bytes: &[u8]) -> Scanned {
    let mut rest = bytes;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        rest = &rest[end + 1..];
        if let [b'\n', body @ ..] | [b'\r', b'\n', body @ ..] = rest {
            return ChunkLines::Size(0).scan(body);
        }
    }
    Scanned::Ended
}

impl ChunkLines {
    /// Looks at the next bytes of the body.
    pub(crate) fn scan(mut self, bytes: &[u8]) -> Scanned {
        let mut rest = bytes;
        while let Some((&byte, behind)) = rest.split_first() {
            self = match self {
                Self::Data(left) => {
                    let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    rest = &rest[skipped..];
                    match left - skipped as u64 {
                        0 => Self::Size(0),
                        left => Self::Data(left),
                    }
                }
                Self::Size(size) => match char::from(byte).to_digit(16) {
                    Some(digit) => {
                        rest = behind;
                        match size.checked_mul(16) {
                            Some(size) => Self::Size(size | u64::from(digit)),
                            None => return Scanned::Ended,
                        }
                    }
                    None => Self::Extension(size),
                },
                Self::Extension(size) => {
                    rest = behind;
                    match byte {
                        b'\n' if size == 0 => return Scanned::Ended,
                        // With the CR and LF behind the data.
                        b'\n' => match size.checked_add(2) {
                            Some(left) => Self::Data(left),
                            None => return Scanned::Ended,
                        },
                        b'\t' | b'\r' => self,
                        _ if byte.is_ascii_control() => return Scanned::Malformed,
                        _ => self,
                    }
                }
            };
        }
        Scanned::GoesOn(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &[u8] =
        b"3;a=\"\xc3\xa9\tb\"\r\n\0\x01\n\r\n10 \t;x\r\n0123456789abcd\r\n\r\n0;z\r\nX: \0";

    #[test]
    fn a_control_character_is_seen_in_an_extension_and_ignored_in_data() {
        assert_eq!(ChunkLines::Size(0).scan(FINE), Scanned::Ended);
        for byte in (0..32).chain([127]).filter(|byte| !b"\t\r\n".contains(byte)) {
            for body in [
                [b"3;a", &[byte][..], b"b\r\nabc\r\n0\r\n\r\n"].concat(),
                [b"3", &[byte][..], b"\r\nabc\r\n0\r\n\r\n"].concat(),
                [b"3\r\nabc\r\n0;", &[byte][..], b"\r\n\r\n"].concat(),
            ] {
                assert_eq!(ChunkLines::Size(0).scan(&body), Scanned::Malformed, "{body:?}");
            }
        }
    }

    #[test]
    fn a_body_may_arrive_in_any_pieces() {
        let malformed = [&FINE[..FINE.len() - 8], b"1;\x1b\r\n"].concat();
        for (body, expected) in [(FINE, Scanned::Ended), (&malformed, Scanned::Malformed)] {
            for size in 1..body.len() {
                let mut scanned = Scanned::GoesOn(ChunkLines::Size(0));
                for piece in body.chunks(size) {
                    let Scanned::GoesOn(lines) = scanned else { break };
                    scanned = lines.scan(piece);
                }
                assert_eq!(scanned, expected, "{size}");
            }
        }
    }

    #[test]
    fn a_body_begins_behind_its_head() {
        let body = |bytes| scan_behind_head(bytes);
        assert_eq!(body(b"chunked\r\nX: y\r\n\r\n3"), Scanned::GoesOn(ChunkLines::Size(3)));
        assert_eq!(body(b"chunked\n\n"), Scanned::GoesOn(ChunkLines::Size(0)));
        assert_eq!(body(b"chunked\r\n\r\n3;\0"), Scanned::Malformed);
        assert_eq!(body(b"chunked\r\n"), Scanned::Ended);
    }

    #[test]
    fn a_size_beyond_64_bits_is_left_to_hyper() {
        assert_eq!(ChunkLines::Size(0).scan(b"10000000000000000;\0"), Scanned::Ended);
        assert_eq!(ChunkLines::Size(0).scan(b"ffffffffffffffff\r\n\0"), Scanned::Ended);
    }
}
