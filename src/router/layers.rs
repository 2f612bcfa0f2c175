//! The patterns of one method, and which of them a path meets.
//!
//! Of several patterns that match, the most specific one wins: the first segment that tells them
//! apart decides, a literal before a parameter with text around it, that before a plain parameter,
//! and the rest of a path last. In which order they were added does not matter.
//!
//! The path tree (matchit) decides so by itself, but it refuses patterns between which it would have
//! to go back and try again: a parameter and a rest at the same place, a prefix and a suffix in the
//! same segment. So there may be several trees, asked in order. Patterns are put into them from the
//! most specific one on, each into the last tree, or if that refuses it into a new one behind: what
//! is in an earlier tree is more specific than what matches the same path in a later one. Most
//! applications have one tree.

use std::cmp::Reverse;

use rustc_hash::FxHashMap;

use super::PathParams;

type Tree = matchit::Router<usize>;

/// The trees, in order. The first apart from the others, so that most look-ups touch no list.
#[derive(Clone, Default)]
pub(super) struct Layers {
    first: Tree,
    further: Vec<Tree>,
    has_patterns: bool,
}

impl Layers {
    /// Of patterns in the tree's syntax, no two of the same [`shape`], and what look-ups give.
    pub(super) fn new(mut patterns: Vec<(&str, usize)>) -> Self {
        // The text has no say; it makes the order one that does not depend on that of the additions.
        patterns.sort_by_cached_key(|(pattern, _)| (ranks(pattern), (*pattern).to_owned()));
        let mut layers = Self { has_patterns: !patterns.is_empty(), ..Self::default() };
        let mut suffixes = Suffixes::default();
        for (pattern, value) in patterns {
            let last = layers.further.last_mut().unwrap_or(&mut layers.first);
            if !suffixes.admit(pattern) || last.insert(pattern, value).is_err() {
                let mut tree = Tree::default();
                // Every pattern fits in a tree of its own: that was tried when it was read.
                let _ = tree.insert(pattern, value);
                layers.further.push(tree);
                suffixes = Suffixes::default();
                suffixes.admit(pattern);
            }
        }
        layers
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.has_patterns
    }

    /// The value and the parameters of the most specific pattern that matches.
    pub(super) fn at<'t, 'p>(&'t self, path: &'p str) -> Option<(usize, PathParams<'t, 'p>)> {
        let found = match self.first.at(path) {
            Ok(found) => found,
            Err(_) => self.further.iter().find_map(|tree| tree.at(path).ok())?,
        };
        Some((*found.value, found.params))
    }
}

/// What follows the parameters of a tree's patterns in their segments, where more segments follow.
/// The tree takes the longest that fits and does not go back, so it can have but one in each place.
#[derive(Default)]
struct Suffixes(FxHashMap<String, String>);

impl Suffixes {
    /// False if `pattern` has another suffix in a place that is taken.
    fn admit(&mut self, pattern: &str) -> bool {
        let shape = shape(pattern);
        shape.match_indices('}').all(|(end, _)| {
            let (place, behind) = shape.split_at(end);
            match behind.split_once('/') {
                None => true,
                Some((suffix, _)) => {
                    self.0.entry(place.to_owned()).or_insert_with(|| suffix.to_owned()) == suffix
                }
            }
        })
    }
}

/// `pattern` without the names of its parameters: patterns alike have the same.
pub(super) fn shape(pattern: &str) -> String {
    let mut shape = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some((literal, (name, behind))) =
        rest.split_once('{').and_then(|(literal, tail)| Some((literal, tail.split_once('}')?)))
    {
        shape.push_str(literal);
        shape.push_str(if name.starts_with('*') { "{*}" } else { "{}" });
        rest = behind;
    }
    shape + rest
}

/// How specific a segment is; the smaller, the more.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Literal,
    /// By the lengths of the text in front and behind.
    Parameter(Reverse<usize>, Reverse<usize>),
    Rest,
}

fn ranks(pattern: &str) -> Vec<Rank> {
    let rank = |segment: &str| match (segment.split_once('{'), segment.split_once('}')) {
        (Some((_, inner)), _) if inner.starts_with('*') => Rank::Rest,
        (Some((front, _)), Some((_, behind))) => {
            Rank::Parameter(Reverse(front.len()), Reverse(behind.len()))
        }
        _ => Rank::Literal,
    };
    pattern.split('/').map(rank).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(patterns: &[&str]) -> Layers {
        Layers::new(patterns.iter().enumerate().map(|(value, pattern)| (*pattern, value)).collect())
    }

    /// What [`Layers::at`] is to find, worked out pattern by pattern.
    fn expected(patterns: &[&str], path: &str) -> Option<(usize, Vec<String>)> {
        let all = patterns.iter().enumerate();
        let matching = all.filter_map(|(value, pattern)| Some((value, matched(pattern, path)?)));
        matching.min_by_key(|(value, _)| ranks(patterns[*value]))
    }

    fn matched(pattern: &str, path: &str) -> Option<Vec<String>> {
        let mut params = Vec::new();
        let mut left = Some(path);
        for segment in pattern.split('/') {
            let (given, behind) = match left?.split_once('/') {
                Some((given, behind)) => (given, Some(behind)),
                None => (left?, None),
            };
            if segment.starts_with("{*") {
                params.push(left?.to_owned());
                return left.filter(|rest| !rest.is_empty()).map(|_| params);
            }
            match segment.split_once('{') {
                None if segment == given => {}
                None => return None,
                Some((front, tail)) => {
                    let value = given.strip_prefix(front)?.strip_suffix(tail.split_once('}')?.1)?;
                    params.push(Some(value).filter(|value| !value.is_empty())?.to_owned());
                }
            }
            left = behind;
        }
        left.is_none().then_some(params)
    }

    fn assert_finds(patterns: &[&str], layers: &Layers, path: &str) {
        let found = layers.at(path).map(|(value, params)| {
            (value, params.iter().map(|(_, value)| value.to_owned()).collect::<Vec<_>>())
        });
        assert_eq!(found, expected(patterns, path), "{path} in {patterns:?}");
    }

    #[test]
    fn patterns_that_a_tree_can_tell_apart_are_in_one() {
        let layers = layers(&[
            "/",
            "/{user}",
            "/users/{id}",
            "/users/{id}/posts/{post}",
            "/users/me",
            "/files/{*rest}",
            "/v{major}/x",
            "/download/{stem}.json",
            "/download/{stem}",
        ]);
        assert!(layers.further.is_empty());
    }

    #[test]
    fn patterns_between_which_a_tree_cannot_go_back_are_in_few() {
        let mut patterns = vec!["/{user}", "/{*rest}"];
        let groups: Vec<_> =
            (0..50).map(|n| [format!("/{n}/{{x}}/b"), format!("/{n}/{{*r}}")]).collect();
        patterns.extend(groups.iter().flatten().map(String::as_str));
        let layers = layers(&patterns);
        assert_eq!(layers.further.len(), 2);
        for path in ["/", "/ada", "/ada/", "/7/q/b", "/7/q/c", "/7/q", "/7", "/49/q/b/"] {
            assert_finds(&patterns, &layers, path);
        }
    }

    #[test]
    fn the_most_specific_pattern_is_found_whichever_there_are_and_in_whichever_order() {
        let segments = ["", "a", "ab", "{x}", "a{x}", "ab{x}", "{x}b", "{x}ab", "a{x}b", "{*x}"];
        let given = ["", "a", "ab", "b", "aab", "abb", "q"];
        let mut random = 1_u64;
        let mut below = |limit: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as usize % limit
        };
        let mut deepest = 0;
        for _ in 0..3_000 {
            let mut patterns: Vec<String> = Vec::new();
            for _ in 0..=below(7) {
                let mut pattern = String::new();
                for number in 0..=below(3) {
                    let segment = segments[below(segments.len())];
                    pattern += &format!("/{}", segment.replace('x', &format!("p{number}")));
                    if segment.contains('*') {
                        break;
                    }
                }
                if patterns.iter().all(|known| shape(known) != shape(&pattern)) {
                    patterns.push(pattern);
                }
            }
            let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
            let built = layers(&patterns);
            deepest = deepest.max(built.further.len());
            for _ in 0..40 {
                let path: String =
                    (0..=below(3)).map(|_| format!("/{}", given[below(given.len())])).collect();
                assert_finds(&patterns, &built, &path);
            }
        }
        assert!(deepest > 1);
    }

    #[test]
    fn a_shape_has_no_names() {
        assert_eq!(shape("/a{x}b/{y}/{*z}"), "/a{}b/{}/{*}");
    }
}
