//! One path tree a method.

use http::Method;
use rustc_hash::FxHashMap;

use super::Pattern;

/// The methods a route can answer, in the order of the table's slots.
const METHODS: [Method; 7] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::HEAD,
    Method::OPTIONS,
];

fn slot(method: &Method) -> Option<usize> {
    METHODS.iter().position(|known| known == method)
}

/// Path parameters of a match, in plain form (what is escaped there is still to be decoded), in
/// pattern order.
pub type PathParams<'k, 'p> = matchit::Params<'k, 'p>;

/// What a look-up found.
pub enum Lookup<'t, 'p> {
    /// A route answers this method and path.
    Found {
        /// The value given to [`Table::insert`].
        value: usize,
        /// The path's parameters.
        params: PathParams<'t, 'p>,
    },
    /// HEAD on a path that has only a GET route: call that and send no body.
    HeadOfGet {
        /// The value given to [`Table::insert`] for GET.
        value: usize,
        /// The path's parameters.
        params: PathParams<'t, 'p>,
    },
    /// The path exists for other methods: the value of `Allow`.
    OtherMethods(String),
    /// No route has this path, but one has its [`other_slash`].
    Redirect,
    /// No route has this path.
    NotFound,
}

/// Two routes that answer the same method and path.
#[derive(Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The value of the route that was there first.
    pub with: usize,
}

/// Routes by method and path; built at start-up, read on every request.
#[derive(Clone, Default)]
pub struct Table {
    trees: [matchit::Router<usize>; 7],
    /// The routes without parameters, by their path: a literal path wins over any pattern, so
    /// they need no tree. Nobody can make them collide: the keys are the application's, and what is
    /// looked up is not kept.
    literals: [FxHashMap<String, usize>; 7],
    /// Where the rest of a path begins that a route takes: for paths that end there.
    rests: [matchit::Router<usize>; 7],
    /// A path that only a slash at the end keeps from a route leads to that one.
    redirects: bool,
    /// Patterns per slot, to name the other side of a conflict.
    patterns: [Vec<(String, usize)>; 7],
}

impl Table {
    /// An empty table; with `redirects`, one that tells a path which only a slash at its end keeps
    /// from a route.
    #[must_use]
    pub fn new(redirects: bool) -> Self {
        Self { redirects, ..Self::default() }
    }

    /// Adds `pattern` for `method`; `value` comes back from look-ups.
    ///
    /// # Errors
    /// The value of the route it collides with; `usize::MAX` for a method that is not routable.
    pub fn insert(
        &mut self,
        method: &Method,
        pattern: &Pattern,
        value: usize,
    ) -> Result<(), Conflict> {
        let Some(slot) = slot(method) else {
            return Err(Conflict { with: usize::MAX });
        };
        match self.trees[slot].insert(pattern.tree.clone(), value) {
            Ok(()) => {
                self.patterns[slot].push((pattern.tree.clone(), value));
                if let Some((_, front)) = pattern.rest() {
                    // Two that collide here would have collided above.
                    let _ = self.rests[slot].insert(front, value);
                }
                if pattern.params.is_empty() && !pattern.tree.contains(['{', '}']) {
                    self.literals[slot].insert(pattern.tree.clone(), value);
                }
                Ok(())
            }
            Err(error) => {
                let with = match &error {
                    matchit::InsertError::Conflict { with } => self.patterns[slot]
                        .iter()
                        .find(|(tree, _)| tree == with)
                        .map_or(usize::MAX, |(_, value)| *value),
                    _ => usize::MAX,
                };
                Err(Conflict { with })
            }
        }
    }

    /// The route without parameters for a request, if there is one: the value given to
    /// [`Table::insert`]. To be asked before [`Table::find`], which is slower. `path` may be as sent:
    /// what is found is right; what is not may be there in plain form.
    pub fn find_literal(&self, method: &Method, path: &str) -> Option<usize> {
        self.literals[slot(method)?].get(path).copied()
    }

    /// Finds the route for a request; `path` is in plain form ([`super::plain`]).
    pub fn find<'t, 'p>(&'t self, method: &Method, path: &'p str) -> Lookup<'t, 'p> {
        if let Some(slot) = slot(method)
            && let Some((value, params)) = self.at(slot, path)
        {
            return Lookup::Found { value, params };
        }
        if method == Method::HEAD
            && let Some((value, params)) = self.at(0, path)
        {
            return Lookup::HeadOfGet { value, params };
        }
        let allow = self.allow(|slot| self.at(slot, path).is_some());
        if !allow.is_empty() {
            return Lookup::OtherMethods(allow);
        }
        if self.redirects && self.has_other_slash(path) {
            return Lookup::Redirect;
        }
        Lookup::NotFound
    }

    /// The methods that any path answers, as the value of `Allow`.
    #[must_use]
    pub fn all_methods(&self) -> String {
        self.allow(|slot| !self.patterns[slot].is_empty())
    }

    /// Whether a route has the other slash of `path`, and it is safe to say so.
    fn has_other_slash(&self, path: &str) -> bool {
        let other = other_slash(path);
        // What begins with two slashes names another host, and browsers read the one as the other.
        let is_ours = other.starts_with('/') && !other[1..].starts_with(['/', '\\']);
        is_ours && (0..METHODS.len()).any(|slot| self.at(slot, &other).is_some())
    }

    /// The route of a slot for `path`. A parameter that takes the rest of the path is not among the
    /// parameters where that is empty.
    fn at<'t, 'p>(&'t self, slot: usize, path: &'p str) -> Option<(usize, PathParams<'t, 'p>)> {
        let found = self.trees[slot].at(path).ok();
        let found = found
            .or_else(|| path.ends_with('/').then(|| self.rests[slot].at(path).ok()).flatten())?;
        Some((*found.value, found.params))
    }

    /// The methods whose slots answer, as the value of `Allow`; empty when there are none.
    fn allow(&self, answers: impl Fn(usize) -> bool) -> String {
        let mut names: Vec<&str> = METHODS
            .iter()
            .enumerate()
            .filter(|(slot, _)| answers(*slot))
            .map(|(_, method)| method.as_str())
            .collect();
        if names.is_empty() {
            return String::new();
        }
        for (implied, by) in [("HEAD", "GET"), ("OPTIONS", "")] {
            if !names.contains(&implied) && (by.is_empty() || names.contains(&by)) {
                names.push(implied);
            }
        }
        names.join(", ")
    }
}

/// `path` with the slash at its end taken off or put on.
#[must_use]
pub fn other_slash(path: &str) -> String {
    match path.strip_suffix('/') {
        Some(shorter) => shorter.to_owned(),
        None => format!("{path}/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(routes: &[(Method, &str)]) -> Table {
        let mut table = Table::default();
        for (index, (method, path)) in routes.iter().enumerate() {
            table.insert(method, &Pattern::parse(path).unwrap(), index).unwrap();
        }
        table
    }

    #[test]
    fn a_literal_segment_wins_over_a_parameter() {
        let table = table(&[(Method::GET, "/users/{id}"), (Method::GET, "/users/me")]);
        assert!(matches!(table.find(&Method::GET, "/users/me"), Lookup::Found { value: 1, .. }));
        let Lookup::Found { value: 0, params } = table.find(&Method::GET, "/users/7") else {
            unreachable!("/users/7 must match the parameter")
        };
        assert_eq!(params.get("id"), Some("7"));
    }

    #[test]
    fn the_rest_of_a_path_may_be_empty_unless_a_route_ends_there() {
        let table = table(&[
            (Method::GET, "/a/{id}/{rest:path}"),
            (Method::GET, "/b/{rest:path}"),
            (Method::GET, "/b/"),
        ]);
        let Lookup::Found { value: 0, params } = table.find(&Method::GET, "/a/7/") else {
            unreachable!("/a/7/ has an empty rest")
        };
        assert_eq!((params.get("id"), params.get("rest")), (Some("7"), None));
        assert!(matches!(table.find(&Method::GET, "/b/"), Lookup::Found { value: 2, .. }));
        assert!(matches!(table.find(&Method::GET, "/a/7"), Lookup::NotFound));
        assert!(matches!(table.find(&Method::PUT, "/a/7/"), Lookup::OtherMethods(_)));
    }

    #[test]
    fn head_falls_back_to_get() {
        let table = table(&[(Method::GET, "/a")]);
        assert!(matches!(table.find(&Method::HEAD, "/a"), Lookup::HeadOfGet { value: 0, .. }));
    }

    #[test]
    fn another_method_is_told_what_the_path_allows() {
        let table = table(&[(Method::GET, "/a"), (Method::POST, "/a")]);
        let Lookup::OtherMethods(allow) = table.find(&Method::DELETE, "/a") else {
            unreachable!("DELETE /a has no route")
        };
        assert_eq!(allow, "GET, POST, HEAD, OPTIONS");
        assert!(matches!(table.find(&Method::GET, "/b"), Lookup::NotFound));
    }

    #[test]
    fn a_slash_at_the_end_leads_to_the_route_without_it_and_never_to_another_host() {
        let mut table = Table::new(true);
        for (value, path) in ["/a", "/b/", "//{x}/", "/\\{x}/"].iter().enumerate() {
            table.insert(&Method::GET, &Pattern::parse(path).unwrap(), value).unwrap();
        }
        let leads = |path| matches!(table.find(&Method::POST, path), Lookup::Redirect);
        assert!(leads("/b"));
        assert!(!leads("//evil.example"));
        assert!(!leads("/\\evil.example"));
        assert!(!leads("*"));
        assert_eq!((&*other_slash("/b"), &*other_slash("/b/")), ("/b/", "/b"));
        assert!(matches!(Table::default().find(&Method::GET, "/b"), Lookup::NotFound));
    }

    #[test]
    fn two_routes_alike_name_the_first() {
        let mut table = table(&[(Method::GET, "/a"), (Method::GET, "/u/{id}")]);
        let again = Pattern::parse("/u/{name}").unwrap();
        assert_eq!(table.insert(&Method::GET, &again, 2), Err(Conflict { with: 1 }));
    }
}
