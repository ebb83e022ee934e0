//! Sets of request methods.

use crate::Error;

/// The methods of one map, each with its number.
#[derive(Debug, Clone, Default)]
pub struct MethodTable {
    names: Vec<Box<str>>,
    /// The set of GET, which nearly every look-up is for.
    get: MethodSet,
}

/// A set of methods, by their numbers in a [`MethodTable`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MethodSet(u128);

impl MethodSet {
    /// How many different methods a map can know. IANA registers 40.
    pub const MOST: usize = 128;

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether some method is in both sets.
    #[must_use]
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// What is in either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl MethodTable {
    /// The set of one method; empty if no rule names it.
    #[must_use]
    pub fn one(&self, method: &str) -> MethodSet {
        if method == "GET" {
            return self.get;
        }
        self.names.iter().position(|name| **name == *method).map_or(MethodSet(0), |at| MethodSet(1 << at))
    }

    /// The set of these methods, numbering new ones.
    ///
    /// # Errors
    /// [`Error::Methods`] when there are too many.
    pub fn add<'m>(&mut self, methods: impl IntoIterator<Item = &'m str>) -> Result<MethodSet, Error> {
        let mut set = MethodSet(0);
        for method in methods {
            if self.one(method).is_empty() {
                if self.names.len() == MethodSet::MOST {
                    return Err(Error::Methods);
                }
                if method == "GET" {
                    self.get = MethodSet(1 << self.names.len());
                }
                self.names.push(method.into());
            }
            set = set.union(self.one(method));
        }
        Ok(set)
    }

    /// The names in a set, sorted.
    #[must_use]
    pub fn names(&self, set: MethodSet) -> Vec<&str> {
        let mut found: Vec<&str> = (self.names.iter().enumerate())
            .filter(|(at, _)| set.meets(MethodSet(1 << at)))
            .map(|(_, name)| &**name)
            .collect();
        found.sort_unstable();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_sorted_and_unknown_methods_are_in_no_set() {
        let mut table = MethodTable::default();
        let set = table.add(["POST", "GET"]).unwrap();
        assert_eq!(table.names(set), ["GET", "POST"]);
        assert!(set.meets(table.one("GET")));
        assert!(!set.meets(table.one("get")));
        assert!(table.one("BREW").is_empty());
    }

    #[test]
    fn the_hundred_and_twenty_ninth_method_is_refused() {
        let names: Vec<String> = (0..129).map(|n| format!("M{n}")).collect();
        assert!(MethodTable::default().add(names.iter().take(128).map(|name| &**name)).is_ok());
        assert_eq!(MethodTable::default().add(names.iter().map(|name| &**name)), Err(Error::Methods));
    }
}
