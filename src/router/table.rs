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

/// Path parameters of a match, raw (still percent-encoded), in pattern order.
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
    /// Patterns per slot, to name the other side of a conflict.
    patterns: [Vec<(String, usize)>; 7],
}

impl Table {
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
    /// [`Table::insert`]. To be asked before [`Table::find`], which is slower.
    pub fn find_literal(&self, method: &Method, path: &str) -> Option<usize> {
        self.literals[slot(method)?].get(path).copied()
    }

    /// Finds the route for a request; `path` is raw, as sent.
    pub fn find<'t, 'p>(&'t self, method: &Method, path: &'p str) -> Lookup<'t, 'p> {
        if let Some(slot) = slot(method)
            && let Ok(found) = self.trees[slot].at(path)
        {
            return Lookup::Found { value: *found.value, params: found.params };
        }
        if method == Method::HEAD
            && let Ok(found) = self.trees[0].at(path)
        {
            return Lookup::HeadOfGet { value: *found.value, params: found.params };
        }
        let allow = self.allow(path);
        if allow.is_empty() { Lookup::NotFound } else { Lookup::OtherMethods(allow) }
    }

    /// The methods that `path` answers, as the value of `Allow`; empty when there are none.
    fn allow(&self, path: &str) -> String {
        let mut names: Vec<&str> = METHODS
            .iter()
            .zip(&self.trees)
            .filter(|(_, tree)| tree.at(path).is_ok())
            .map(|(method, _)| method.as_str())
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
    fn two_routes_alike_name_the_first() {
        let mut table = table(&[(Method::GET, "/a"), (Method::GET, "/u/{id}")]);
        let again = Pattern::parse("/u/{name}").unwrap();
        assert_eq!(table.insert(&Method::GET, &again, 2), Err(Conflict { with: 1 }));
    }
}
