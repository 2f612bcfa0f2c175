//! What the timers lie in: a row in order, and a heap for what does not fit in near its end.
//!
//! Timers of a program mostly have a few delays, so a new one nearly always comes last, or before a
//! handful of long ones. There it is put into the row with a comparison or two, and taken from its
//! front with one, where a heap looks at all of its levels. Any other goes to the heap: adding and
//! taking cost O(log n) at most.

use std::collections::{BinaryHeap, VecDeque};

/// A new item is compared with as many from the end of the row.
const NEAR_THE_END: usize = 16;

/// Items of which the greatest comes first, as in a [`BinaryHeap`].
pub(super) struct Deadlines<T> {
    /// The greatest first.
    row: VecDeque<T>,
    heap: BinaryHeap<T>,
}

impl<T: Ord> Default for Deadlines<T> {
    fn default() -> Self {
        Self { row: VecDeque::new(), heap: BinaryHeap::new() }
    }
}

impl<T: Ord> Deadlines<T> {
    /// All of these.
    pub(super) fn of(items: Vec<T>) -> Self {
        Self { row: VecDeque::new(), heap: BinaryHeap::from(items) }
    }

    pub(super) fn len(&self) -> usize {
        self.row.len() + self.heap.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.row.is_empty() && self.heap.is_empty()
    }

    #[inline]
    pub(super) fn push(&mut self, item: T) {
        if self.row.back().is_none_or(|last| *last > item) {
            self.row.push_back(item);
        } else {
            self.push_before_the_end(item);
        }
    }

    fn push_before_the_end(&mut self, item: T) {
        let later = self.row.iter().rev().take(NEAR_THE_END).take_while(|other| **other < item);
        match later.count() {
            NEAR_THE_END => self.heap.push(item),
            later => self.row.insert(self.row.len() - later, item),
        }
    }

    /// The first.
    pub(super) fn peek(&self) -> Option<&T> {
        match (self.row.front(), self.heap.peek()) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        }
    }

    /// Takes the first.
    pub(super) fn pop(&mut self) -> Option<T> {
        match (self.row.front(), self.heap.peek()) {
            (Some(a), Some(b)) if a < b => self.heap.pop(),
            (None, _) => self.heap.pop(),
            _ => self.row.pop_front(),
        }
    }

    /// In no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.row.iter().chain(&self.heap)
    }

    /// In no order.
    pub(super) fn into_vec(self) -> Vec<T> {
        let mut all = self.heap.into_vec();
        all.extend(self.row);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::{Deadlines, NEAR_THE_END};

    /// Numbers that nobody would guess, the same each time.
    fn numbers() -> impl Iterator<Item = u64> {
        std::iter::successors(Some(1_u64), |last| Some(last.wrapping_mul(6_364_136_223) ^ 7919))
    }

    fn drained(mut deadlines: Deadlines<u64>) -> Vec<u64> {
        let mut all = Vec::new();
        while let Some(first) = deadlines.peek().copied() {
            assert_eq!(deadlines.pop(), Some(first));
            all.push(first);
        }
        assert!(deadlines.is_empty());
        all
    }

    #[test]
    fn they_come_the_greatest_first_whatever_the_order_they_went_in() {
        for spread in [1, 3, NEAR_THE_END as u64, 100, u64::MAX] {
            let items: Vec<u64> = numbers()
                .take(500)
                .zip((1..=500).rev())
                .map(|(n, at)| u64::wrapping_add(at, n % spread))
                .collect();
            let mut deadlines = Deadlines::default();
            items.iter().for_each(|item| deadlines.push(*item));
            assert_eq!(deadlines.len(), 500);
            assert_eq!(deadlines.iter().count(), 500);
            let mut expected = items;
            expected.sort_unstable_by(|a, b| b.cmp(a));
            assert_eq!(drained(deadlines), expected);
        }
    }

    #[test]
    fn taking_between_adding_keeps_the_order() {
        let (mut deadlines, mut model) = (Deadlines::of(vec![5, 9, 7]), vec![5, 9, 7]);
        for number in numbers().take(2000) {
            if number % 3 == 0 {
                model.sort_unstable();
                assert_eq!(deadlines.pop(), model.pop());
            } else {
                deadlines.push(number % 1000);
                model.push(number % 1000);
            }
        }
        let mut left = deadlines.into_vec();
        left.sort_unstable();
        model.sort_unstable();
        assert_eq!(left, model);
    }

    #[test]
    fn a_few_long_ones_do_not_send_the_others_to_the_heap() {
        let mut deadlines = Deadlines::default();
        (0..8).for_each(|long| deadlines.push(long));
        (0..1000).rev().for_each(|short| deadlines.push(1000 + short));
        assert!(deadlines.heap.is_empty());
        assert_eq!(deadlines.pop(), Some(1999));
    }
}
