//! Values behind tokens. A token is never that of two values: what comes late for a value that is gone finds nothing.

const INDEX_BITS: u32 = 12;
/// More values than this are refused.
pub const CAPACITY: usize = 1 << INDEX_BITS;

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// At most [`CAPACITY`] values.
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    /// Keeps `value`; none if there are too many. A token is never 0.
    pub fn insert(&mut self, value: T) -> Option<u32> {
        if self.free.is_empty() {
            if self.slots.len() >= CAPACITY {
                return None;
            }
            self.free.push(self.slots.len() as u32);
            self.slots.push(Slot { generation: 0, value: None });
        }
        let index = self.free.pop()?;
        let slot = &mut self.slots[index as usize];
        slot.generation = (slot.generation + 1) & (u32::MAX >> INDEX_BITS);
        slot.generation = slot.generation.max(1);
        slot.value = Some(value);
        Some(slot.generation << INDEX_BITS | index)
    }

    fn slot(&self, token: u32) -> Option<&Slot<T>> {
        let slot = self.slots.get(token as usize % CAPACITY)?;
        (slot.generation == token >> INDEX_BITS).then_some(slot)
    }

    /// The value, if it is still there.
    pub fn get(&self, token: u32) -> Option<&T> {
        self.slot(token)?.value.as_ref()
    }

    /// The value, if it is still there.
    pub fn get_mut(&mut self, token: u32) -> Option<&mut T> {
        let slot = self.slots.get_mut(token as usize % CAPACITY)?;
        if slot.generation == token >> INDEX_BITS { slot.value.as_mut() } else { None }
    }

    /// Takes the value out.
    pub fn remove(&mut self, token: u32) -> Option<T> {
        let value = self.get_mut(token).is_some().then(|| self.slots[token as usize % CAPACITY].value.take())??;
        self.free.push(token & (CAPACITY as u32 - 1));
        Some(value)
    }

    /// All values, with their tokens.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            slot.value.as_ref().map(|value| (slot.generation << INDEX_BITS | index as u32, value))
        })
    }

    /// The tokens of the values that `wanted` picks.
    pub fn tokens(&self, wanted: impl Fn(&T) -> bool) -> Vec<u32> {
        self.iter().filter(|(_, value)| wanted(value)).map(|(token, _)| token).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{CAPACITY, Slab};

    #[test]
    fn a_token_outlives_its_value_without_meaning_another() {
        let mut slab = Slab::new();
        let first = slab.insert('a').expect("room");
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b').expect("room");
        assert_ne!(first, second);
        assert_eq!((slab.get(first), slab.get(second)), (None, Some(&'b')));
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.iter().collect::<Vec<_>>(), [(second, &'b')]);
    }

    #[test]
    fn there_is_an_end() {
        let mut slab = Slab::new();
        assert!((0..CAPACITY).all(|value| slab.insert(value).is_some()));
        assert!(slab.insert(0).is_none());
    }
}
