//! Stage four: which rules an executed program matches.
//!
//! In: a [`Subject`](fields::Subject), which is an exec and what is needed to read its fields. Out: the rules that
//! match. `load` reads the tables from compiled-in and administrator's files; `catalogue` says which utility a program
//! is; `condition`, `pattern` and `fields` decide whether a rule matches; `prefilter` decides on the listener's thread,
//! with one or two look-ups, whether any could. All of it is free of I/O but `load`.
//!
//! Logic is three-valued: a field that could not be read satisfies neither a test nor its negation.

pub mod builtin;
pub mod catalogue;
pub mod condition;
pub mod fields;
pub mod load;
pub mod model;
pub mod pattern;
pub mod prefilter;
pub mod ruleset;
