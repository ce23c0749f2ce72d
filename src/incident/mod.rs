//! Incidents: alerts that belong together, and everything else that happened around them, as one story.

pub mod report;
mod shown;
mod span;
pub mod story;
mod tree;
