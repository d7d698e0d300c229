//! Where the sides of a pair may be: a table with open addressing, eight bytes a slot.
//!
//! A library's table has two places in memory to wait for in each look, doubles as a whole, and needs the sides
//! themselves to grow. This one has one place, grows by a third, and by itself: slots are sorted, each stands at or
//! shortly behind the position that its digits have among all numbers of 32 bits, and so growing copies front to back.

/// Leading digits of a pair's digest.
pub(crate) type Digits = u32;

/// Places are below it.
pub(crate) const NO_PLACE: u32 = u32::MAX;

/// Digits in the upper half, a place in the lower one: sorts by digits.
type Slot = u64;
const FREE: Slot = Slot::MAX;

/// Slots that are looked at together. Most runs are shorter, and counting them needs no jump that could be guessed wrong.
const WINDOW: usize = 8;
const SMALLEST: usize = 8;

/// A multimap from digits to places. Nothing is ever taken out.
#[derive(Debug)]
pub(crate) struct Places {
    /// Homes, then room for runs that go beyond the last one; the last [`WINDOW`] slots are always free.
    slots: Vec<Slot>,
    homes: usize,
    used: usize,
}

impl Default for Places {
    fn default() -> Self {
        Self { slots: vec![FREE; SMALLEST + 2 * WINDOW], homes: SMALLEST, used: 0 }
    }
}

impl Places {
    /// All places that were added under these digits, and no others.
    pub(crate) fn of(&self, digits: Digits) -> impl Iterator<Item = u32> {
        let slots = self.slots[self.first_from(slot(digits, 0))..].iter();
        let those = slots.take_while(move |slot| **slot >> 32 == u64::from(digits) && **slot != FREE);
        those.map(|slot| *slot as u32)
    }

    /// Whether the slot is free where these digits would be first.
    pub(crate) fn is_home_free(&self, digits: Digits) -> bool {
        self.slots[self.home(slot(digits, 0))] == FREE
    }

    pub(crate) fn add(&mut self, digits: Digits, place: u32) {
        // Longer runs than four fifths make cost more time than their memory is worth.
        if self.used * 5 >= self.homes * 4 {
            self.grow();
        }
        self.used += 1;
        let mut carried = slot(digits, place);
        let mut at = self.first_from(carried);
        // Everything behind it moves on by one, as far as the run goes.
        while carried != FREE {
            std::mem::swap(&mut carried, &mut self.slots[at]);
            at += 1;
        }
        if at + WINDOW > self.slots.len() {
            self.slots.reserve_exact(WINDOW);
            self.slots.extend([FREE; WINDOW]);
        }
    }

    fn grow(&mut self) {
        self.homes = self.homes / 3 * 4 + SMALLEST;
        let larger = Vec::with_capacity(self.homes + 2 * WINDOW);
        let slots = std::mem::replace(&mut self.slots, larger);
        for slot in slots.into_iter().filter(|slot| *slot != FREE) {
            let home = self.home(slot);
            if self.slots.len() < home {
                self.slots.resize(home, FREE);
            }
            self.slots.push(slot);
        }
        let room = self.slots.len().max(self.homes + WINDOW) + WINDOW;
        self.slots.reserve_exact(room - self.slots.len());
        self.slots.resize(room, FREE);
    }

    /// The position of the first slot that is not below this one; free slots are above all others.
    fn first_from(&self, slot: Slot) -> usize {
        let home = self.home(slot);
        home + self.slots[home..].iter().take_while(|other| **other < slot).count()
    }

    fn home(&self, slot: Slot) -> usize {
        (((slot >> 32) * self.homes as u64) >> 32) as usize
    }

    /// Bytes on the heap.
    pub(crate) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
    }
}

fn slot(digits: Digits, place: u32) -> Slot {
    u64::from(digits) << 32 | u64::from(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some digits are the same, some close together at both ends, so that runs are long and go over the last home.
    fn digits(place: u32) -> Digits {
        [place / 3, u32::MAX - place / 4, place.wrapping_mul(0x9e37_79b9)][place as usize % 3]
    }

    #[test]
    fn every_place_is_found_under_its_digits_while_the_table_grows() {
        let mut places = Places::default();
        for place in 0..3_000 {
            places.add(digits(place), place);
            let found: Vec<u32> = places.of(digits(place)).collect();
            let expected: Vec<u32> = (0..=place).filter(|other| digits(*other) == digits(place)).collect();
            assert_eq!(found, expected);
        }
        for place in 0..3_000 {
            assert!(places.of(digits(place)).any(|found| found == place));
        }
        assert_eq!(places.of(5_000).count(), 0);
    }

    #[test]
    fn a_place_takes_at_most_fourteen_bytes() {
        let mut places = Places::default();
        for place in 0..100_000_u32 {
            places.add(place.wrapping_mul(0x9e37_79b9), place);
            assert!(place < 1_000 || places.bytes() <= place as usize * 14, "{} for {place}", places.bytes());
        }
    }
}
