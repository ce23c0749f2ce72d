//! What the keeper of the index, the listeners and the worker share.

use std::sync::Arc;

use super::index::Index;
use super::mounts::Learned;
use crate::published::Published;

/// What is shared.
#[derive(Debug, Default)]
pub struct Shared {
    /// The index, which the keeper makes.
    pub index: Arc<Published<Index>>,
    /// What the worker learned of file systems.
    pub learned: Learned,
}

impl Shared {
    /// Shares an index.
    pub fn new(index: Index) -> Self {
        Shared { index: Arc::new(Published::new(index)), learned: Learned::default() }
    }
}
