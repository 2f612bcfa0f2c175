//! Routes as they are registered, before there is a table of them.

use http::Method;
use rustc_hash::FxHashMap;

use super::Pattern;
use super::layers::shape;
use super::table::{METHODS, Table, slot};

/// Two routes that answer the same method and path.
#[derive(Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The value of the route that was there first; `usize::MAX` for a method that no route can have.
    pub with: usize,
}

/// The patterns of a method by their shape, in the tree's syntax, and the values of their routes.
type Patterns = FxHashMap<String, (String, usize)>;

/// The routes of an application, no two of which are alike.
#[derive(Clone, Default)]
pub struct Register {
    redirects: bool,
    slots: [Slot; METHODS.len()],
}

#[derive(Clone, Default)]
struct Slot {
    patterns: Patterns,
    /// What is in front of the rest of a path, for paths that end there: trees match no empty rest.
    fronts: Patterns,
}

impl Register {
    /// Without routes; with `redirects`, for a table that tells a path which only a slash at its end
    /// keeps from a route.
    #[must_use]
    pub fn new(redirects: bool) -> Self {
        Self { redirects, ..Self::default() }
    }

    /// Adds `pattern` for all of `methods`, or for none; `value` comes back from look-ups.
    ///
    /// # Errors
    /// The value of a route that is alike.
    pub fn add(
        &mut self,
        methods: &[Method],
        pattern: &Pattern,
        value: usize,
    ) -> Result<(), Conflict> {
        let shape_of_all = shape(&pattern.tree);
        let mut slots = Vec::with_capacity(methods.len());
        for method in methods {
            let slot = slot(method).ok_or(Conflict { with: usize::MAX })?;
            if let Some((_, with)) = self.slots[slot].patterns.get(&shape_of_all) {
                return Err(Conflict { with: *with });
            }
            slots.push(slot);
        }
        for slot in slots {
            let Slot { patterns, fronts } = &mut self.slots[slot];
            patterns.insert(shape_of_all.clone(), (pattern.tree.clone(), value));
            if let Some((_, front)) = pattern.rest() {
                fronts.insert(shape(front), (front.to_owned(), value));
            }
        }
        Ok(())
    }

    /// The table of all that were added.
    #[must_use]
    pub fn table(&self) -> Table {
        let mut table = Table::new(self.redirects);
        for (slot, method) in METHODS.iter().enumerate() {
            // HEAD is what GET is, without the body: a route for HEAD replaces the one for GET that is
            // alike, and no more specific one.
            let implied = if *method == Method::HEAD { &self.slots[..1] } else { &[] };
            let all = || std::iter::once(&self.slots[slot]).chain(implied);
            let mut patterns: FxHashMap<&str, (&str, usize)> = FxHashMap::default();
            for (shape, (pattern, value)) in all().flat_map(|slot| &slot.patterns) {
                patterns.entry(shape).or_insert((pattern, *value));
            }
            for (shape, (front, value)) in all().flat_map(|slot| &slot.fronts) {
                patterns.entry(shape).or_insert((front, *value));
            }
            table.fill(slot, patterns.into_values().collect());
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::super::Lookup;
    use super::*;

    fn pattern(source: &str) -> Pattern {
        Pattern::parse(source).unwrap()
    }

    #[test]
    fn two_routes_alike_name_the_first_and_the_second_is_not_there() {
        let mut register = Register::default();
        register.add(&[Method::GET], &pattern("/a"), 0).unwrap();
        register.add(&[Method::GET], &pattern("/u/{id}"), 1).unwrap();
        for (again, with) in [("/u/{name:int}", 1), ("/a", 0), ("/%61", 0)] {
            let methods = [Method::POST, Method::GET];
            assert_eq!(register.add(&methods, &pattern(again), 2), Err(Conflict { with }));
        }
        let table = register.table();
        assert!(matches!(table.find(&Method::POST, "/u/7"), Lookup::OtherMethods(_)));
        assert!(matches!(table.find(&Method::GET, "/u/7"), Lookup::Found { value: 1, .. }));
    }

    #[test]
    fn routes_that_only_match_the_same_path_are_not_alike() {
        let mut register = Register::default();
        let sources = ["/{a}", "/{a:path}", "/{a}/x", "/p{a}", "/{a}.j", "/", "/a/{a:path}", "/a/"];
        for (value, source) in sources.iter().enumerate() {
            register.add(&[Method::GET], &pattern(source), value).unwrap();
        }
    }

    #[test]
    fn a_method_that_no_route_can_have_is_a_conflict_with_none() {
        let added = Register::default().add(&[Method::TRACE], &pattern("/"), 0);
        assert_eq!(added, Err(Conflict { with: usize::MAX }));
    }
}
