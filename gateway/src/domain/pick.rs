//! Which replica takes the next request: two at random, the one with fewer requests in flight wins. It spreads load
//! nearly as well as asking all of them, without the herd that always asking for the least loaded one causes
//! (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).

/// Index of the chosen one of `in_flight`, the number of requests under way at each candidate; `None` without
/// candidates. `random(n)` returns a number in `0..n`, and is only asked for `n > 0`.
pub fn two_choices(in_flight: &[usize], mut random: impl FnMut(usize) -> usize) -> Option<usize> {
    let others = in_flight.len().checked_sub(1)?;
    let first = random(in_flight.len());
    if others == 0 {
        return Some(first);
    }
    // Any index but the first: those from `first` on move up by one.
    let second = random(others);
    let second = if second >= first { second.saturating_add(1) } else { second };
    let load = |index: usize| in_flight.get(index).copied().unwrap_or(usize::MAX);
    Some(if load(second) < load(first) { second } else { first })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busier_of_two_is_never_chosen() {
        for (a, b) in [(0, 0), (1, 0)] {
            let mut draws = [a, b].into_iter();
            assert_eq!(two_choices(&[5, 4], |_| draws.next().unwrap()), Some(1));
        }
    }

    #[test]
    fn two_different_candidates_are_compared() {
        for first in 0..4 {
            for second in 0..3 {
                let mut draws = [first, second].into_iter();
                // Every candidate is busier than those behind it, so the later one wins; it never meets itself.
                let other = if second >= first { second + 1 } else { second };
                assert_ne!(first, other);
                assert_eq!(two_choices(&[9, 8, 7, 6], |_| draws.next().unwrap()), Some(first.max(other)));
            }
        }
    }

    #[test]
    fn with_equal_load_all_are_chosen() {
        let mut seen = [false; 3];
        for first in 0..3 {
            let mut draws = [first, 0].into_iter();
            seen[two_choices(&[1, 1, 1], |_| draws.next().unwrap()).unwrap()] = true;
        }
        assert_eq!(seen, [true; 3]);
        assert_eq!(two_choices(&[7], |_| 0), Some(0));
        assert_eq!(two_choices(&[], |_| 0), None);
    }
}
