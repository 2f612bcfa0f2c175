//! A route's pattern: literal segments and `{name}` or `{name:converter}` parameters.

use std::fmt;

use super::escapes::plain;

/// What a converter named in a pattern turns the segment into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Converter {
    /// One segment, as text.
    Str,
    /// One segment, a decimal integer.
    Int,
    /// One segment, a finite decimal number.
    Float,
    /// One segment, a UUID.
    Uuid,
    /// The rest of the path, slashes included; may be empty.
    Path,
}

impl Converter {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "str" => Self::Str,
            "int" => Self::Int,
            "float" => Self::Float,
            "uuid" => Self::Uuid,
            "path" => Self::Path,
            _ => return None,
        })
    }

    /// The name used in patterns.
    pub fn name(self) -> &'static str {
        match self {
            Self::Str => "str",
            Self::Int => "int",
            Self::Float => "float",
            Self::Uuid => "uuid",
            Self::Path => "path",
        }
    }
}

/// The path tree panics where there are more.
const MOST_PARAMS: usize = 25;

/// A pattern that was read and found right.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// The text as written.
    pub source: String,
    /// The same in the path tree's syntax, literals in plain form.
    pub tree: String,
    /// Parameters in order; `None` where the pattern names no converter.
    pub params: Vec<(String, Option<Converter>)>,
}

/// Why a pattern was refused; the text says what and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError(String);

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PatternError {}

impl Pattern {
    /// Reads `source`.
    ///
    /// # Errors
    /// A missing leading slash, unbalanced braces, a bad or repeated name, an unknown converter,
    /// too many parameters, or a `path` parameter that is not last.
    pub fn parse(source: &str) -> Result<Self, PatternError> {
        let fail = |reason: String| Err(PatternError(format!("path {source:?}: {reason}")));
        if !source.starts_with('/') {
            return fail("must start with '/'".into());
        }
        if let Some(bad) = source.chars().find(|c| c.is_control() || matches!(c, '?' | '#')) {
            return fail(format!("{bad:?} cannot be part of a path"));
        }
        let mut tree = String::with_capacity(source.len());
        let mut params: Vec<(String, Option<Converter>)> = Vec::new();
        let mut rest = source;
        while let Some(open) = rest.find(['{', '}']) {
            let (literal, tail) = rest.split_at(open);
            tree.push_str(&plain(literal));
            if tail.starts_with('}') {
                return fail("'}' without '{'".into());
            }
            let Some(close) = tail.find('}') else {
                return fail("'{' is never closed".into());
            };
            let inner = &tail[1..close];
            let (name, converter) = match inner.split_once(':') {
                Some((name, text)) => match Converter::parse(text) {
                    Some(converter) => (name, Some(converter)),
                    None => {
                        return fail(format!(
                            "unknown converter {text:?} (known: str, int, float, uuid, path)"
                        ));
                    }
                },
                None => (inner, None),
            };
            if !is_identifier(name) {
                return fail(format!("{name:?} is not a parameter name"));
            }
            if params.iter().any(|(known, _)| known == name) {
                return fail(format!("parameter {name:?} appears twice"));
            }
            rest = &tail[close + 1..];
            let segment = rest.split('/').next().unwrap_or_default();
            if segment.contains('{') {
                return fail(format!(
                    "only one parameter can be in a segment, {{{inner}}} is followed by another"
                ));
            }
            if converter == Some(Converter::Path) {
                if !rest.is_empty() {
                    return fail(format!(
                        "{{{inner}}} takes the rest of the path and must be last"
                    ));
                }
                if !tree.ends_with('/') {
                    return fail(format!("{{{inner}}} must follow a '/'"));
                }
                tree.push_str("{*");
            } else {
                tree.push('{');
            }
            tree.push_str(name);
            tree.push('}');
            params.push((name.to_owned(), converter));
            if params.len() > MOST_PARAMS {
                return fail(format!("more than {MOST_PARAMS} parameters"));
            }
        }
        tree.push_str(&plain(rest));
        if let Err(error) = matchit::Router::new().insert(tree.clone(), ()) {
            return fail(error.to_string());
        }
        Ok(Self { source: source.to_owned(), tree, params })
    }
}

impl Pattern {
    /// Name of the parameter that takes the rest of the path, and the tree's syntax in front of it:
    /// a path that ends there has an empty rest, which the tree does not match.
    pub fn rest(&self) -> Option<(&str, &str)> {
        let (name, _) = self.params.last().filter(|(_, kind)| *kind == Some(Converter::Path))?;
        Some((name, self.tree.split_at(self.tree.len() - name.len() - "{*}".len()).0))
    }
}

fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c == '_' || c.is_alphabetic())
        && chars.all(|c| c == '_' || c.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(source: &str) -> String {
        Pattern::parse(source).unwrap_err().to_string()
    }

    #[test]
    fn a_pattern_names_its_parameters_and_converters() {
        let pattern = Pattern::parse("/users/{id:int}/files/{rest:path}").unwrap();
        assert_eq!(pattern.tree, "/users/{id}/files/{*rest}");
        assert_eq!(
            pattern.params,
            [("id".into(), Some(Converter::Int)), ("rest".into(), Some(Converter::Path))]
        );
        assert_eq!(pattern.rest(), Some(("rest", "/users/{id}/files/")));
        assert_eq!(Pattern::parse("/users/{id}").unwrap().rest(), None);
    }

    #[test]
    fn literals_are_in_plain_form_and_make_no_parameters() {
        let tree = |source| Pattern::parse(source).unwrap().tree;
        assert_eq!(tree("/caf%c3%a9/{id}%3Ax"), "/café/{id}:x");
        assert_eq!(tree("/a b/100%"), "/a b/100%25");
        assert_eq!(tree("/%7bid%7d"), "/%7Bid%7D");
    }

    #[test]
    fn a_mistake_is_named() {
        assert!(error("users").contains("must start with '/'"));
        assert!(error("/{id:integer}").contains("unknown converter \"integer\""));
        assert!(error("/{id").contains("never closed"));
        assert!(error("/id}").contains("without '{'"));
        assert!(error("/{}").contains("not a parameter name"));
        assert!(error("/{a}/{a}").contains("appears twice"));
        assert!(error("/{a:path}/b").contains("must be last"));
        assert!(error("/x?y").contains("cannot be part"));
        let many = |count| (0..count).map(|n| format!("/{{p{n}}}")).collect::<String>();
        assert!(Pattern::parse(&many(25)).is_ok());
        assert!(error(&many(26)).contains("more than 25 parameters"));
    }
}
