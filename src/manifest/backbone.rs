//! The `[backbone]` section of `model.toml`: a graph from images to activations.

use serde::{Deserialize, Serialize};

use crate::manifest::{Facet, Precision, Tap};

/// `backbone.onnx`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneFile {
    /// File name inside the directory.
    pub file: String,
    /// SHA-256 of the file, hexadecimal. This is the digest that heads are bound to.
    pub sha256: String,
    /// External data files, when the graph has any: name and SHA-256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub external: Vec<[String; 2]>,
    /// ONNX operator set.
    pub opset: u32,
    /// Element type of the weights.
    pub precision: Precision,
    /// SHA-256 of the file of ranges that the steps of an 8-bit graph come from, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranges_sha256: Option<String>,
    /// The one size `[H, W]` in pixels that a graph with a baked position table accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baked_size: Option<[u32; 2]>,
    /// Facets in the graph.
    pub facets: Vec<Facet>,
    /// Blocks in the graph.
    pub layers: Vec<u32>,
    /// The block, 0-based, whose queries and residuals are those of every second row and column of patches (SegViT Shrunk): it and all
    /// later ones give maps of half the rows and columns, rounded up. Absent in plain backbones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_downsample: Option<u32>,
    /// What a request gets that names neither facet nor layer.
    pub default: Tap,
}

impl BackboneFile {
    /// Whether the graph has this activation among its outputs.
    #[must_use]
    pub fn offers(&self, tap: Tap) -> bool {
        self.facets.contains(&tap.facet) && self.layers.contains(&tap.layer)
    }

    /// Whether the map of this activation has half the rows and columns of patches; see [`Tap::is_halved`].
    #[must_use]
    pub fn is_halved(&self, tap: Tap) -> bool {
        tap.is_halved(self.query_downsample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_is_halved_from_the_queries_of_the_block_on() {
        let is_halved = |block, layer| Facet::ALL.map(|facet| Tap { facet, layer }.is_halved(block));
        assert_eq!(is_halved(Some(1), 0), [false; 5]);
        assert_eq!(is_halved(Some(1), 1), [false, true, false, true, true], "keys and values come from all patches");
        assert_eq!(is_halved(Some(1), 2), [true; 5]);
        assert_eq!(is_halved(None, 2), [false; 5]);
    }
}
