//! Norms of an image's tokens after every block: measured, told in numbers, drawn.

use anyhow::{Context as _, ensure};
use bytes::Bytes;

use crate::{
    commands::features::{FeatureArgs, encoded, to_map},
    grpc::{client::Client, pb::v1 as pb},
    norms::{Histogram, Spread, find},
    picture::{Panel, heat, histograms},
    tensor::{FeatureMap, RgbImage},
};

/// Panels of a row.
const A_ROW: usize = 4;

/// Norms of the patches of one image after one block.
pub(super) struct BlockNorms {
    layer: u32,
    grid: [usize; 2],
    norms: Vec<f32>,
}

/// The model that answered, and the norms after each block whose tokens it offers.
///
/// # Errors
/// When the model offers no tokens, and what the server refuses.
pub(super) async fn fetch(features: &FeatureArgs, client: &Client, file: Bytes) -> anyhow::Result<(String, Vec<BlockNorms>)> {
    let model = client.model(features.input.model()).await?;
    let has_tokens = model.facets.contains(&pb::Facet::Token.into());
    ensure!(has_tokens, "{}/{} offers no tokens, whose norms are to be drawn", model.name, model.version);
    let mut blocks = Vec::with_capacity(model.layers.len());
    for layer in model.layers {
        let request = pb::ExtractRequest {
            model: Some(features.input.model()),
            image: Some(encoded(file.clone())),
            preprocess: Some(features.input.preprocess()),
            features: Some(pb::FeatureOptions {
                facet: pb::Facet::Token.into(),
                layer: Some(layer),
                lift_passes: Some(0),
                ..Default::default()
            }),
        };
        let map = to_map(&client.extract(request).await?)?;
        blocks.push(BlockNorms { layer, grid: [map.rows(), map.cols()], norms: norms(&map) });
    }
    Ok((format!("{}/{}", model.name, model.version), blocks))
}

/// A line a block: the middle, the largest, and whether some are outliers.
pub(super) fn describe(blocks: &[BlockNorms]) -> Vec<String> {
    let line = |block: &BlockNorms| {
        let Some(Spread { median, deviation, max }) = Spread::of(&block.norms) else {
            return format!("block {:>2}: no norm is a number", block.layer);
        };
        let outliers = find(&block.norms).map_or("none".to_owned(), |found| found.to_string());
        format!("block {:>2}: median {median:.2}, deviation {deviation:.2}, largest {max:.2}; outliers: {outliers}", block.layer)
    };
    blocks.iter().map(line).collect()
}

/// Rows of panels: the photo and the histograms of all blocks, then a map a block, each from its lowest norm to its highest.
///
/// # Errors
/// When there is nothing to draw.
pub(super) fn draw(photo: Panel, blocks: &[BlockNorms]) -> anyhow::Result<Vec<Vec<Panel>>> {
    let counted: Vec<Histogram> = blocks.iter().map(|block| Histogram::of(&block.norms)).collect();
    let mut rows = vec![vec![photo, histograms(&counted).context("the tokens have no norms")?]];
    for blocks in blocks.chunks(A_ROW) {
        rows.push(blocks.iter().map(panel).collect::<anyhow::Result<_>>()?);
    }
    Ok(rows)
}

fn panel(block: &BlockNorms) -> anyhow::Result<Panel> {
    let image: RgbImage = heat(&block.norms, block.grid, None).context("the norms do not fill their grid")?;
    let most = Spread::of(&block.norms).map_or(0.0, |spread| spread.max);
    let least = block.norms.iter().copied().fold(f32::INFINITY, f32::min);
    Ok(Panel { caption: format!("block {} {least:.1} to {most:.1}", block.layer), image })
}

/// Lengths of a map's descriptors.
fn norms(map: &FeatureMap) -> Vec<f32> {
    map.data().chunks(map.channels().max(1)).map(|cell| cell.iter().map(|value| value * value).sum::<f32>().sqrt()).collect()
}
