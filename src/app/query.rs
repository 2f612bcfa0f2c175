//! Query strings: `application/x-www-form-urlencoded`, as browsers send it.

use std::borrow::Cow;

/// The names and values of `query`, in order. A name without `=` has an empty value; escapes that
/// are no UTF-8 are replaced.
pub fn pairs(query: &str) -> Pairs<'_> {
    Pairs { rest: query }
}

/// See [`pairs`].
pub struct Pairs<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (Cow<'a, str>, Cow<'a, str>);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            // One look at each byte: names and values are short, and most have nothing to decode.
            let (mut end, mut equals, mut is_escaped) = (self.rest.len(), None, false);
            for (at, byte) in self.rest.bytes().enumerate() {
                match byte {
                    b'&' => {
                        end = at;
                        break;
                    }
                    b'=' if equals.is_none() => equals = Some(at),
                    b'%' | b'+' => is_escaped = true,
                    _ => {}
                }
            }
            let pair = &self.rest[..end];
            self.rest = self.rest.get(end + 1..).unwrap_or_default();
            if pair.is_empty() {
                continue;
            }
            let (name, value) = equals.map_or((pair, ""), |at| (&pair[..at], &pair[at + 1..]));
            return Some(if is_escaped {
                (decoded(name), decoded(value))
            } else {
                (Cow::Borrowed(name), Cow::Borrowed(value))
            });
        }
        None
    }
}

fn decoded(text: &str) -> Cow<'_, str> {
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::pairs;

    #[test]
    fn they_are_those_of_the_standard() {
        for query in [
            "",
            "&",
            "a",
            "a=",
            "=b",
            "=",
            "a=1&b=2",
            "a=1&&b=2&",
            "a=b=c",
            "a+b=c+d&e",
            "%61=%26%3D%2b+&x",
            "a=%",
            "a=%4",
            "a=%zz&%=1",
            "a=%ff%fe",
            "%C3%BC=ü&ü=%c3%bc",
            "a=%3D=%3d",
            "+",
            "%26=%26",
        ] {
            let ours: Vec<_> = pairs(query).collect();
            let standard: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
            assert_eq!(ours, standard, "{query:?}");
        }
    }
}
