//! Incidents: alerts that belong together, and everything else that happened around them, as one story.

mod lines;
pub mod report;
pub mod show;
mod shown;
mod span;
pub mod story;
mod tree;
