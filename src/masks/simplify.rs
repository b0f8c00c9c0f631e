//! Rings with fewer corners.

/// Corners between two that are always kept. The search for the farthest corner starts again for each one that is kept, so that without
/// a bound a hostile outline of `n` corners would take `n^2` steps.
const MAX_CHAIN: usize = 1024;

/// The corners of a ring without those that lie within `tolerance_px` of the line through the others (Douglas and Peucker 1973). Keeps
/// the first corner and the one farthest from it. May be a line, or a point, where a ring is thinner than the tolerance.
pub(super) fn simplified(ring: &[[u32; 2]], tolerance_px: f64) -> Vec<[u32; 2]> {
    let Some(first) = ring.first() else { return Vec::new() };
    let mut is_kept = vec![false; ring.len()];
    let farthest = farthest(ring, *first, *first).map_or(0, |(idx, _)| idx);
    let mut anchors: Vec<usize> = (0..ring.len()).step_by(MAX_CHAIN).chain([farthest]).collect();
    anchors.sort_unstable();
    anchors.dedup();
    anchors.iter().for_each(|anchor| is_kept[*anchor] = true);
    let ends = anchors.iter().copied().skip(1).chain([ring.len()]);
    let mut chains: Vec<(usize, usize)> = anchors.iter().copied().zip(ends).collect();
    // Chains of corners behind `begin` and in front of `end`, which are kept.
    while let Some((begin, end)) = chains.pop() {
        let end_corner = ring.get(end).unwrap_or(first);
        let Some((idx, distance_px)) = farthest_of_chain(ring, begin, end, *end_corner) else { continue };
        if distance_px > tolerance_px {
            is_kept[idx] = true;
            chains.extend([(begin, idx), (idx, end)]);
        }
    }
    ring.iter().zip(is_kept).filter_map(|(corner, is_kept)| is_kept.then_some(*corner)).collect()
}

fn farthest_of_chain(ring: &[[u32; 2]], begin: usize, end: usize, end_corner: [u32; 2]) -> Option<(usize, f64)> {
    let inner = ring.get(begin + 1..end)?;
    let (idx, distance_px) = farthest(inner, *ring.get(begin)?, end_corner)?;
    Some((begin + 1 + idx, distance_px))
}

/// The corner farthest from the line between two, and its distance.
fn farthest(corners: &[[u32; 2]], from: [u32; 2], to: [u32; 2]) -> Option<(usize, f64)> {
    let distances = corners.iter().map(|corner| distance(*corner, from, to)).enumerate();
    distances.reduce(|best, other| if other.1 > best.1 { other } else { best })
}

/// Distance of a point from the line between two others, ends included.
fn distance(point: [u32; 2], from: [u32; 2], to: [u32; 2]) -> f64 {
    let vector = |to: [u32; 2]| [f64::from(to[0]) - f64::from(from[0]), f64::from(to[1]) - f64::from(from[1])];
    let (line, own) = (vector(to), vector(point));
    let length2 = line[0] * line[0] + line[1] * line[1];
    let share = if length2 > 0.0 { ((own[0] * line[0] + own[1] * line[1]) / length2).clamp(0.0, 1.0) } else { 0.0 };
    (own[0] - share * line[0]).hypot(own[1] - share * line[1])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_staircase_becomes_its_diagonal() {
        let stairs = (0..20u32).flat_map(|step| [[step, step], [step, step + 1]]);
        let ring: Vec<[u32; 2]> = stairs.chain([[20, 20], [20, 0]]).collect();
        assert_eq!(simplified(&ring, 1.0), [[0, 0], [20, 20], [20, 0]]);
        assert_eq!(simplified(&ring, 0.0), ring);
    }

    proptest! {
        #[test]
        fn every_corner_stays_within_the_tolerance(
            ring in proptest::collection::vec((0u32..100, 0u32..100).prop_map(|(x, y)| [x, y]), 3..60),
            tolerance_px in 0.0..20.0,
        ) {
            let kept = simplified(&ring, tolerance_px);
            prop_assert!(kept.iter().all(|corner| ring.contains(corner)));
            let mut sides = kept.iter().zip(kept.iter().cycle().skip(1));
            for corner in &ring {
                let nearest = sides.clone().map(|(from, to)| distance(*corner, *from, *to)).fold(f64::INFINITY, f64::min);
                prop_assert!(nearest <= tolerance_px + 1e-9, "{corner:?} is {nearest} away");
            }
            prop_assert!(sides.next().is_some());
        }

        #[test]
        fn long_rings_are_simplified_in_bounded_chains(n in 1usize..5000) {
            let ring: Vec<[u32; 2]> = (0..n).map(|idx| [idx as u32, (idx * idx % 7) as u32]).collect();
            let kept = simplified(&ring, 10.0);
            prop_assert!(kept.len() <= n / MAX_CHAIN + 2, "{}", kept.len());
        }
    }
}
