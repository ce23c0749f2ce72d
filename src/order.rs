//! Sorting lists that no exec waits for.
//!
//! The standard library's sort is compiled anew for each type and order, at seven kilobytes a time: thirty places made a
//! fortieth of the program. Here only what compares and what moves is compiled anew: the sort is one, over places.

use std::cmp::Ordering;
use std::collections::BTreeSet;

/// Sorts a list by an order; those that are equal in it stay as they stood.
pub fn by<T>(list: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    let places = sorted(list.len(), &|one, other| compare(&list[one], &list[other]));
    arrange(places, &mut |one, other| list.swap(one, other));
}

/// Sorts a list by a key of each; those with the same one stay as they stood.
pub fn by_key<T, K: Ord>(list: &mut [T], key: impl Fn(&T) -> K) {
    by(list, |one, other| key(one).cmp(&key(other)));
}

/// A set of these. To collect one would sort them first, with the standard library's sort.
pub fn set<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    let mut set = BTreeSet::new();
    for item in items {
        set.insert(item);
    }
    set
}

/// The places of a list in the order of what stands there.
fn sorted(length: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut places: Vec<usize> = (0..length).collect();
    places.sort_unstable_by(|&one, &other| compare(one, other).then(one.cmp(&other)));
    places
}

/// Swaps until at each place stands what stood at the place named there: around each ring of places once.
fn arrange(mut places: Vec<usize>, swap: &mut dyn FnMut(usize, usize)) {
    for start in 0..places.len() {
        let mut at = start;
        loop {
            let next = std::mem::replace(&mut places[at], at);
            if next == start {
                break;
            }
            swap(at, next);
            at = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_sorts_as_the_standard_library_does(list in prop::collection::vec(0u8..20, 0..200)) {
            let numbered: Vec<(u8, usize)> = list.iter().copied().zip(0..).collect();
            let (mut one, mut two, mut expected) = (numbered.clone(), numbered.clone(), numbered);
            expected.sort_by_key(|(value, _)| std::cmp::Reverse(*value));
            by_key(&mut one, |(value, _)| std::cmp::Reverse(*value));
            by(&mut two, |one, other| other.0.cmp(&one.0));
            prop_assert_eq!(&one, &expected);
            prop_assert_eq!(&two, &expected);
        }
    }
}
