//! One worker's share of many images: which belong to it is said by their names alone.
//!
//! # Design
//! An image belongs to shard `CRC-32(name) mod N`, where the name is its path below the folder that was given, without extension. Workers need not
//! talk to each other, and images that are added later move none of the others, as they would if every N-th of a sorted list were taken.

use std::{path::Path, str::FromStr};

use crate::postprocess::crc32;

/// The images of one of `n_shards` workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    n_shards: u32,
}

impl Shard {
    /// Whether an image belongs to this shard; `name` as in [`InputImage`](super::inputs::InputImage).
    pub fn takes(self, name: &Path) -> bool {
        crc32(name.as_os_str().as_encoded_bytes()) % self.n_shards == self.index
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(index, n)| Some((index.parse().ok()?, n.parse().ok()?)));
        let Some((index, n_shards)) = numbers else { return Err("expected INDEX/COUNT, as in 0/4".into()) };
        if index >= n_shards {
            return Err(format!("indices of {n_shards} shards are below {n_shards}"));
        }
        Ok(Self { index, n_shards })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn every_image_belongs_to_one_shard_and_shards_are_of_like_size() {
        let n_images = 10_000;
        for n_shards in [1, 2, 7, 8, 64] {
            let shards: Vec<Shard> = (0..n_shards).map(|index| Shard { index, n_shards }).collect();
            let mut sizes = vec![0; n_shards as usize];
            for image in 0..n_images {
                let name = format!("album_{}/photo_{image:06}", image % 10);
                let takers: Vec<_> = shards.iter().filter(|shard| shard.takes(Path::new(&name))).collect();
                assert_eq!(takers.len(), 1, "{name}");
                sizes[takers[0].index as usize] += 1;
            }
            // Images that fell at random would deviate by the square root of a shard's size; four times that never comes.
            let mean = f64::from(n_images) / f64::from(n_shards);
            let deviates = |size: &i32| (f64::from(*size) - mean).abs() > 4.0 * mean.sqrt();
            assert!(!sizes.iter().any(deviates), "{n_shards} shards: {sizes:?}");
        }
    }

    #[test]
    fn the_share_is_that_of_zlib() {
        // Python: zlib.crc32(b"holiday/beach") = 1327273502, which is 2 modulo 4.
        let takes = |index| Shard { index, n_shards: 4 }.takes(Path::new("holiday/beach"));
        assert_eq!([0, 1, 2, 3].map(takes), [false, false, true, false]);
    }

    #[test]
    fn shards_that_there_are_not_are_refused() {
        assert_eq!("3/4".parse::<Shard>(), Ok(Shard { index: 3, n_shards: 4 }));
        for text in ["4/4", "0/0", "1", "-1/4", "a/b", "1/", "1/2/3"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
        assert!("4/4".parse::<Shard>().unwrap_err().contains("below 4"));
    }
}
