//! Stage four: which rules an executed program matches.
//!
//! In: a [`Subject`](subject::Subject), which is an exec and what is needed to read its fields. Out: the rules that
//! match. `load` reads the tables from compiled-in and administrator's files (`model`, `selection`, `macros`,
//! `exception`, `threshold`); `catalogue` says which utility a program is; `fields` is the vocabulary, `subject` reads
//! it, `question`, `pattern`, `arguments` and `address` test it, `condition` joins the tests; `prefilter` decides on the
//! listener's thread, with one or two look-ups, whether any rule could match. All of it is free of I/O but `load`, and
//! fields of other processes, which are looked up in /proc when a rule asks for them.
//!
//! Logic is three-valued: a field that could not be read satisfies neither a test nor its negation.

pub mod action;
pub mod address;
pub mod arguments;
pub mod builtin;
pub mod catalogue;
pub mod condition;
pub mod current;
pub mod exception;
pub mod explain;
pub mod fields;
mod file_fields;
pub mod found;
pub mod held;
pub mod interpreter;
pub mod load;
pub mod macros;
pub mod model;
pub mod pattern;
pub mod prefilter;
pub mod question;
pub mod review;
pub mod ruleset;
pub mod selection;
pub mod sigma;
pub mod subject;
pub mod threshold;
pub mod value;
