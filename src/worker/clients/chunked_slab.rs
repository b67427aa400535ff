//! A slab that grows by chunks. A vector that doubles would copy every connection of a worker as it
//! grows, hold up to twice what they need, and leave the copies behind in the allocator.

use std::ops::{Index, IndexMut};

use slab::Slab;

/// Entries of a chunk.
const CHUNK: usize = 256;

/// Values by small numbers, each of which is the lowest that was free in its chunk.
pub(in crate::worker) struct ChunkedSlab<T> {
    chunks: Vec<Slab<T>>,
    /// The chunks with a free entry. All others are full.
    open: Vec<usize>,
    len: usize,
}

impl<T> Default for ChunkedSlab<T> {
    fn default() -> ChunkedSlab<T> {
        ChunkedSlab { chunks: Vec::new(), open: Vec::new(), len: 0 }
    }
}

impl<T> ChunkedSlab<T> {
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts in what `make` makes of its index, and gives the index.
    pub fn insert(&mut self, make: impl FnOnce(usize) -> T) -> usize {
        let at = match self.open.last() {
            Some(at) => *at,
            None => {
                self.chunks.push(Slab::new());
                self.open.push(self.chunks.len() - 1);
                self.chunks.len() - 1
            }
        };
        let chunk = &mut self.chunks[at];
        if chunk.capacity() == 0 {
            *chunk = Slab::with_capacity(CHUNK);
        }
        let entry = chunk.vacant_entry();
        let index = at * CHUNK + entry.key();
        entry.insert(make(index));
        if chunk.len() == CHUNK {
            self.open.pop();
        }
        self.len += 1;
        index
    }

    #[inline]
    pub fn get(&self, index: usize) -> Option<&T> {
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)
    }

    #[inline]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.chunks.get_mut(index / CHUNK)?.get_mut(index % CHUNK)
    }

    pub fn remove(&mut self, index: usize) -> Option<T> {
        let at = index / CHUNK;
        let chunk = self.chunks.get_mut(at)?;
        let removed = chunk.try_remove(index % CHUNK)?;
        if chunk.len() == CHUNK - 1 {
            self.open.push(at);
        }
        self.len -= 1;
        Some(removed)
    }

    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let chunks = self.chunks.iter().enumerate();
        chunks.flat_map(|(at, chunk)| chunk.iter().map(move |(key, it)| (at * CHUNK + key, it)))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut T)> {
        let chunks = self.chunks.iter_mut().enumerate();
        chunks
            .flat_map(|(at, chunk)| chunk.iter_mut().map(move |(key, it)| (at * CHUNK + key, it)))
    }

    /// Gives the memory of empty chunks back.
    pub fn shrink(&mut self) {
        for chunk in self.chunks.iter_mut().filter(|chunk| chunk.is_empty()) {
            *chunk = Slab::new();
        }
    }
}

impl<T> Index<usize> for ChunkedSlab<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: usize) -> &T {
        &self.chunks[index / CHUNK][index % CHUNK]
    }
}

impl<T> IndexMut<usize> for ChunkedSlab<T> {
    #[inline]
    fn index_mut(&mut self, index: usize) -> &mut T {
        &mut self.chunks[index / CHUNK][index % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use std::collections::BTreeMap;

    #[test]
    fn indexes_stay_below_the_most_that_were_there_at_once() {
        let mut slab = ChunkedSlab::default();
        let indexes: Vec<usize> = (0..3 * CHUNK).map(|_| slab.insert(|index| index)).collect();
        for index in &indexes {
            assert_eq!(slab.remove(*index), Some(*index));
        }
        slab.shrink();
        assert!((0..3 * CHUNK).all(|_| slab.insert(|index| index) < 3 * CHUNK));
        assert!(slab.chunks.iter().all(|chunk| chunk.capacity() == CHUNK));
    }

    proptest! {
        #[test]
        fn each_value_is_where_its_index_says(steps in vec((0..9_u8, any::<Index>()), 0..3_000)) {
            let (mut slab, mut model) = (ChunkedSlab::default(), BTreeMap::new());
            for (number, (what, which)) in steps.into_iter().enumerate() {
                match what {
                    0 if !model.is_empty() => {
                        let index = *which.get(&model.keys().copied().collect::<Vec<usize>>());
                        prop_assert_eq!(slab.remove(index), model.remove(&index));
                        prop_assert_eq!(slab.remove(index), None);
                    }
                    1 => slab.shrink(),
                    _ => {
                        let index = slab.insert(|_| number);
                        prop_assert_eq!(model.insert(index, number), None);
                    }
                }
                prop_assert_eq!(slab.is_empty(), model.is_empty());
            }
            let found: Vec<(usize, usize)> = slab.iter().map(|(index, it)| (index, *it)).collect();
            prop_assert_eq!(found, model.clone().into_iter().collect::<Vec<_>>());
            for (index, number) in model {
                prop_assert_eq!(slab.get(index), Some(&number));
                prop_assert_eq!(slab.get_mut(index).copied(), Some(number));
            }
        }
    }
}
