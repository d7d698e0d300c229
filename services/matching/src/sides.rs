//! The store of the book: sides in blocks that never move, and a table that finds them.
//!
//! A map of sides would be half empty after each time it has doubled. Here only the table grows, and the blocks are full
//! except for the last one.

use std::hint::black_box;

use crate::places::{NO_PLACE, Places};
use crate::{Identity, SettlementTerms, Side, TradeTerms};

/// Sides in a block. Small books stay small: the first block grows by doubling.
const BLOCK: usize = 1 << BLOCK_BITS;
const BLOCK_BITS: u32 = 12;

/// With a slot of eight bytes for three fifths of a side or more, an open side takes at most 94 bytes.
const _: () = assert!(size_of::<Side<TradeTerms>>() <= 80 && size_of::<Side<SettlementTerms>>() <= 80);

/// Pairs that are fetched together.
pub(crate) const TOGETHER: usize = 64;

/// Where a side is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place(u32);

/// What was found of a pair.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    pub(crate) own: Option<Place>,
    pub(crate) other: Option<Place>,
}

#[derive(Debug)]
pub(crate) struct Sides<T> {
    blocks: Vec<Vec<Side<T>>>,
    places: Places,
    len: usize,
}

impl<T> Default for Sides<T> {
    fn default() -> Self {
        Self { blocks: Vec::new(), places: Places::default(), len: 0 }
    }
}

impl<T: Copy> Sides<T> {
    /// The sides of both parties, by the identity of one.
    pub(crate) fn find(&self, identity: Identity) -> Found {
        let mut found = Found::default();
        for place in self.places.of(identity.digits()).map(Place) {
            let known = self.get(place).identity;
            if known == identity {
                found.own = Some(place);
            } else if known == identity.other_party() {
                found.other = Some(place);
            }
        }
        found
    }

    /// Brings what is known of at most [`TOGETHER`] pairs from the memory into the processor's caches: first the table,
    /// then the sides. Within each loop nothing depends on what was read, so the processor waits once and not for each.
    pub(crate) fn fetch(&self, identities: impl Iterator<Item = Identity> + Clone) {
        for identity in identities.clone() {
            black_box(self.places.is_home_free(identity.digits()));
        }
        let mut places = [None; TOGETHER];
        for (place, identity) in places.iter_mut().zip(identities) {
            *place = self.places.of(identity.digits()).next();
        }
        for place in places.into_iter().flatten() {
            let side = self.get(Place(place));
            black_box((side.identity, side.version));
        }
    }

    pub(crate) fn get(&self, place: Place) -> &Side<T> {
        let (block, within) = place.split();
        &self.blocks[block][within]
    }

    pub(crate) fn get_mut(&mut self, place: Place) -> &mut Side<T> {
        let (block, within) = place.split();
        &mut self.blocks[block][within]
    }

    /// Adds a side whose identity is not there yet.
    ///
    /// # Panics
    /// With 2^32 - 1 sides: they would take 400 gigabytes.
    pub(crate) fn add(&mut self, side: Side<T>) {
        let place = u32::try_from(self.len).unwrap_or(NO_PLACE);
        assert!(place < NO_PLACE, "a book holds less than 2^32 - 1 sides");
        let (block, _) = Place(place).split();
        if block == self.blocks.len() {
            self.blocks.push(if block == 0 { Vec::new() } else { Vec::with_capacity(BLOCK) });
        }
        self.places.add(side.identity.digits(), place);
        self.blocks[block].push(side);
        self.len += 1;
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Side<T>> {
        self.blocks.iter_mut().flatten()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes on the heap.
    pub(crate) fn bytes(&self) -> usize {
        let room: usize = self.blocks.iter().map(Vec::capacity).sum();
        self.places.bytes() + room * size_of::<Side<T>>() + self.blocks.capacity() * size_of::<Vec<Side<T>>>()
    }
}

impl Place {
    fn split(self) -> (usize, usize) {
        let number = self.0 as usize;
        (number >> BLOCK_BITS, number & (BLOCK - 1))
    }
}
