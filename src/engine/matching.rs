//! Points of one image in another: both images through decode, resize, batch and run beside each other, then compared.

use std::sync::Arc;

use futures_util::future::try_join;

use crate::{
    correspond::{Directions, MatchOptions, match_points},
    engine::{
        Admitted, Clock, Engine, InferError, LoadedModel, MapInfo, Timing,
        cpu::Wanted,
        extract::Ready,
        map::ImageMap,
        request::{FeatureRequest, InputRequest},
    },
    manifest::Manifest,
};

/// Most points of a request.
const MAX_POINTS: usize = 4096;
/// Most products of points and cells, each way: some seconds of one core at 384 channels.
const MAX_PRODUCTS: usize = 1 << 26;
/// Products that are held at once: 4 MiB.
const PRODUCTS_AT_ONCE: usize = 1 << 20;
/// How far from a point the way back may lead, in patches of the backbone along each axis. Cells of LiFT are parts of a patch, and what a
/// patch does not tell apart they cannot.
const MUTUAL: f64 = 1.0;

/// Two images, and points of the first that are looked for in the second.
#[derive(Clone, Debug)]
pub struct MatchRequest {
    /// The image with the points.
    pub source: InputRequest,
    /// The image that they are looked for in; its model counts for nothing.
    pub target: InputRequest,
    /// The maps.
    pub features: FeatureRequest,
    /// Points `[x, y]`, in pixels of the upright source.
    pub points: Vec<[f64; 2]>,
    /// How they are matched.
    pub options: MatchOptions,
}

/// Where a point was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PointMatch {
    /// `[x, y]` in pixels of the target.
    pub point: [f64; 2],
    /// Cosine of the features at the two places.
    pub score: f32,
    /// The score less the best one elsewhere.
    pub margin: f32,
    /// Where the way back leads, in pixels of the source.
    pub back: [f64; 2],
    /// Whether that is within a patch of the point.
    pub is_mutual: bool,
}

/// The answer to a [`MatchRequest`].
#[derive(Debug)]
pub struct Matched {
    /// The map of the source.
    pub source: MapInfo,
    /// The map of the target.
    pub target: MapInfo,
    /// One for each point.
    pub matches: Vec<PointMatch>,
    /// Where the time went, for the image that took longer.
    pub timing: Timing,
    /// The places of both images among the requests in flight.
    pub places: [Arc<Admitted>; 2],
}

impl Engine {
    /// Finds points of one image in another.
    ///
    /// # Errors
    /// See [`InferError`]; nothing of a failed request stays behind, and no other request is affected.
    pub async fn match_points(&self, request: MatchRequest, clock: Clock) -> Result<Matched, InferError> {
        let model = self.model(&request.source.model)?;
        let outcome = self.run_match(&model, request, clock).await;
        model.statistics().request(2, clock.arrived.elapsed(), outcome.as_ref().ok().map(|done| &done.timing));
        outcome
    }

    async fn run_match(&self, model: &Arc<LoadedModel>, request: MatchRequest, clock: Clock) -> Result<Matched, InferError> {
        let MatchRequest { source, target, features, points, options } = request;
        if !(1..=MAX_POINTS).contains(&points.len()) {
            return Err(InferError::invalid("points", format!("has {} points, must have 1 to {MAX_POINTS}", points.len())));
        }
        let ready = async |input: &InputRequest, name: &str| {
            let n_bytes = |grid| n_bytes(grid, points.len(), model.manifest());
            let ready = self.ready(model, (input, features.clone()), |_sizes, grid| n_bytes(grid), clock).await;
            ready.map_err(|error| error.renamed("image", name))
        };
        let is_own = (source.resize, source.interpolation, source.crop) != (target.resize, target.interpolation, target.crop);
        let preprocess = if is_own { "target_preprocess" } else { "preprocess" };
        let of_target = async { ready(&target, "target").await.map_err(|error| error.renamed("preprocess", preprocess)) };
        let (source, target) = try_join(ready(&source, "source"), of_target).await?;
        check_points(&points, &source)?;
        let (source, target) = try_join(source.map(model, clock), target.map(model, clock)).await?;
        let slower = if source.ended > target.ended { &source } else { &target };
        let (timing, ended) = (slower.timing, slower.ended);
        let places = [Arc::clone(&source.place), Arc::clone(&target.place)];
        let work = move |wanted: &_| {
            compare(&source, &target, &points, options, wanted).map(|matches| (source.about, target.about, matches))
        };
        let (source, target, matches) = self.cpu().run_steps("while comparing the images", clock.deadline, work).await??;
        let timing = Timing { postprocess: ended.elapsed(), total: clock.arrived.elapsed(), ..timing };
        Ok(Matched { source, target, matches, timing, places })
    }
}

/// Memory of the comparison for one of its images, in bytes: its directions, and half of the products.
fn n_bytes(grid: [usize; 2], n_points: usize, manifest: &Manifest) -> Result<u64, InferError> {
    let n_cells = grid[0].saturating_mul(grid[1]);
    if n_cells.saturating_mul(n_points) > MAX_PRODUCTS {
        let message = format!(
            "{n_points} points on a map of {} x {} cells are too many, the limit is {MAX_PRODUCTS} for points x cells: send fewer, or ask for a \
             smaller input",
            grid[0], grid[1]
        );
        return Err(InferError::invalid("points", message));
    }
    let n_products = PRODUCTS_AT_ONCE.max(n_cells) as u64;
    Ok(4 * (n_cells as u64 * u64::from(manifest.architecture.width)).saturating_add(n_products))
}

fn check_points(points: &[[f64; 2]], source: &Ready) -> Result<(), InferError> {
    let Some(idx) = points.iter().position(|[x, y]| !source.geometry.contains(*x, *y)) else { return Ok(()) };
    let ((height, width), [x, y]) = (source.geometry.original_size(), points[idx]);
    let message = format!("({x}, {y}) lies outside the used part of the source of {width} x {height} pixels");
    Err(InferError::invalid(format!("points[{idx}]"), message))
}

fn compare(
    source: &ImageMap,
    target: &ImageMap,
    points: &[[f64; 2]],
    options: MatchOptions,
    wanted: &Wanted,
) -> Result<Vec<PointMatch>, InferError> {
    let failed = || InferError::internal("comparing the images", "their maps do not fit each other");
    let directions = |map: &ImageMap| Directions::new(&map.shown(), map.about.grid).ok_or_else(failed);
    let (of_source, of_target) = (directions(source)?, directions(target)?);
    let n_cells = |map: &ImageMap| map.about.grid[0] * map.about.grid[1];
    let at_once = (PRODUCTS_AT_ONCE / n_cells(source).max(n_cells(target))).max(1);
    let reach = MUTUAL * 2f64.powi(i32::try_from(source.about.lift_passes).unwrap_or_default());
    let mut matches = Vec::with_capacity(points.len());
    for points in points.chunks(at_once).take_while(|_points| wanted.is_wanted()) {
        let cells: Vec<[f64; 2]> = points.iter().map(|point| source.about.cell_at(*point)).collect();
        let found = match_points(&of_source, &of_target, &cells, options).ok_or_else(failed)?;
        matches.extend(cells.iter().zip(found).map(|(cell, found)| {
            let is_mutual = (0..2).all(|axis| (found.back[axis] - cell[axis]).abs() <= reach);
            let (point, back) = (target.about.point_at(found.place), source.about.point_at(found.back));
            PointMatch { point, score: found.score, margin: found.margin, back, is_mutual }
        }));
    }
    Ok(matches)
}
