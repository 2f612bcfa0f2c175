//! What a request's method and path lead to.

use http::Method;
use rustc_hash::FxHashMap;

use super::layers::Layers;

/// The methods a route can answer, in the order of the table's slots.
pub(super) const METHODS: [Method; 7] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::HEAD,
    Method::OPTIONS,
];

pub(super) fn slot(method: &Method) -> Option<usize> {
    METHODS.iter().position(|known| known == method)
}

/// Path parameters of a match, in plain form (what is escaped there is still to be decoded), in
/// pattern order.
pub type PathParams<'k, 'p> = matchit::Params<'k, 'p>;

/// What a look-up found.
pub enum Lookup<'t, 'p> {
    /// A route answers this method and path.
    Found {
        /// The value given to [`Register::add`](super::Register::add).
        value: usize,
        /// The path's parameters; a rest that is empty is not among them.
        params: PathParams<'t, 'p>,
    },
    /// The path exists for other methods: the value of `Allow`.
    OtherMethods(String),
    /// No route has this path, but one has its [`other_slash`].
    Redirect,
    /// No route has this path.
    NotFound,
}

/// Routes by method and path; built at start-up, read on every request.
#[derive(Clone, Default)]
pub struct Table {
    trees: [Layers; METHODS.len()],
    /// The routes without parameters, by their path: a literal path wins over any pattern, so
    /// they need no tree. Nobody can make them collide: the keys are the application's, and what is
    /// looked up is not kept.
    literals: [FxHashMap<String, usize>; METHODS.len()],
    /// A path that only a slash at the end keeps from a route leads to that one.
    redirects: bool,
}

impl Table {
    /// An empty one.
    pub(super) fn new(redirects: bool) -> Self {
        Self { redirects, ..Self::default() }
    }

    /// Sets the patterns of a slot, in the tree's syntax and of different shapes, and their values.
    pub(super) fn fill(&mut self, slot: usize, patterns: Vec<(&str, usize)>) {
        let literals = patterns.iter().filter(|(pattern, _)| !pattern.contains('{'));
        self.literals[slot] = literals.map(|(path, value)| ((*path).to_owned(), *value)).collect();
        self.trees[slot] = Layers::new(patterns);
    }

    /// The route without parameters for a request, if there is one: the value given to
    /// [`Register::add`](super::Register::add). To be asked before [`Table::find`], which is slower.
    /// `path` may be as sent: what is found is right; what is not may be there in plain form.
    pub fn find_literal(&self, method: &Method, path: &str) -> Option<usize> {
        self.literals[slot(method)?].get(path).copied()
    }

    /// Finds the route for a request; `path` is in plain form ([`super::plain`]).
    pub fn find<'t, 'p>(&'t self, method: &Method, path: &'p str) -> Lookup<'t, 'p> {
        if let Some(slot) = slot(method)
            && let Some((value, params)) = self.trees[slot].at(path)
        {
            return Lookup::Found { value, params };
        }
        let allow = self.allow(|slot| self.trees[slot].at(path).is_some());
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
        self.allow(|slot| !self.trees[slot].is_empty())
    }

    /// Whether a route has the other slash of `path`, and it is safe to say so.
    fn has_other_slash(&self, path: &str) -> bool {
        let other = other_slash(path);
        // What begins with two slashes names another host, and browsers read the one as the other.
        let is_ours = other.starts_with('/') && !other[1..].starts_with(['/', '\\']);
        is_ours && (0..METHODS.len()).any(|slot| self.trees[slot].at(&other).is_some())
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
        if !names.contains(&"OPTIONS") {
            names.push("OPTIONS");
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
    use super::super::{Pattern, Register};
    use super::*;

    fn table(routes: &[(Method, &str)]) -> Table {
        redirecting(false, routes)
    }

    fn redirecting(redirects: bool, routes: &[(Method, &str)]) -> Table {
        let mut register = Register::new(redirects);
        for (value, (method, path)) in routes.iter().enumerate() {
            register
                .add(std::slice::from_ref(method), &Pattern::parse(path).unwrap(), value)
                .unwrap();
        }
        register.table()
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
            (Method::GET, "/c/{rest:path}"),
            (Method::GET, "/{name}/"),
        ]);
        let Lookup::Found { value: 0, params } = table.find(&Method::GET, "/a/7/") else {
            unreachable!("/a/7/ has an empty rest")
        };
        assert_eq!((params.get("id"), params.get("rest")), (Some("7"), None));
        assert!(matches!(table.find(&Method::GET, "/b/"), Lookup::Found { value: 2, .. }));
        assert!(matches!(table.find(&Method::GET, "/c/"), Lookup::Found { value: 3, .. }));
        assert!(matches!(table.find(&Method::GET, "/d/"), Lookup::Found { value: 4, .. }));
        assert!(matches!(table.find(&Method::GET, "/a/7"), Lookup::NotFound));
        assert!(matches!(table.find(&Method::PUT, "/a/7/"), Lookup::OtherMethods(_)));
    }

    #[test]
    fn head_is_answered_as_get_is_unless_a_route_for_head_is_as_specific() {
        let table = table(&[
            (Method::GET, "/x/me"),
            (Method::HEAD, "/x/{id}"),
            (Method::GET, "/x/{id}"),
            (Method::HEAD, "/x/you"),
            (Method::HEAD, "/all/{rest:path}"),
            (Method::GET, "/all/"),
        ]);
        let found = |path| match table.find(&Method::HEAD, path) {
            Lookup::Found { value, .. } => Some(value),
            _ => None,
        };
        assert_eq!(found("/x/me"), Some(0));
        assert_eq!(table.find_literal(&Method::HEAD, "/x/me"), Some(0));
        assert_eq!(found("/x/7"), Some(1));
        assert_eq!(found("/x/you"), Some(3));
        assert_eq!(found("/all/x"), Some(4));
        assert_eq!(found("/all/"), Some(5));
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
        let routes = ["/a", "/b/", "//{x}/", "/\\{x}/"].map(|path| (Method::GET, path));
        let table = redirecting(true, &routes);
        let leads = |path| matches!(table.find(&Method::POST, path), Lookup::Redirect);
        assert!(leads("/b"));
        assert!(!leads("//evil.example"));
        assert!(!leads("/\\evil.example"));
        assert!(!leads("*"));
        assert_eq!((&*other_slash("/b"), &*other_slash("/b/")), ("/b/", "/b"));
        assert!(matches!(self::table(&routes).find(&Method::GET, "/b"), Lookup::NotFound));
    }

    #[test]
    fn a_path_may_have_its_methods_from_patterns_of_different_shapes() {
        let table = table(&[
            (Method::GET, "/{name}"),
            (Method::POST, "/{rest:path}"),
            (Method::PUT, "/{rest:path}"),
            (Method::GET, "/{rest:path}"),
        ]);
        for (method, path, expected) in [
            (Method::GET, "/a", 0),
            (Method::GET, "/a/b", 3),
            (Method::HEAD, "/a", 0),
            (Method::HEAD, "/", 3),
            (Method::POST, "/a", 1),
            (Method::PUT, "/", 2),
        ] {
            let Lookup::Found { value, .. } = table.find(&method, path) else {
                unreachable!("{method} {path} has a route")
            };
            assert_eq!(value, expected, "{method} {path}");
        }
        let Lookup::OtherMethods(allow) = table.find(&Method::DELETE, "/a") else {
            unreachable!("DELETE /a has no route")
        };
        assert_eq!(allow, "GET, POST, PUT, HEAD, OPTIONS");
    }
}
