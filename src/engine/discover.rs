//! One image to the objects that stand out in it: decode, resize, batch, run, search.

use std::{borrow::Cow, sync::Arc};

use crate::{
    discover::{CORNERS, Discovery, MAX_CELLS, MAX_OBJECTS, Method, Search, centred},
    engine::{
        Admitted, ClassMask, Clock, Engine, InferError, LoadedModel, MapInfo, MaskFormat, Timing,
        cpu::Wanted,
        map::ImageMap,
        request::{FeatureRequest, InputRequest},
        segment::{MaskEncoder, mask_failed},
    },
    manifest::{Facet, Manifest, Tap},
    masks::{BitMask, MaskLimits},
    preprocess::Rect,
};

/// One image whose objects are looked for.
#[derive(Clone, Debug)]
pub struct DiscoverRequest {
    /// The image.
    pub input: InputRequest,
    /// The map; where it names none, the one that objects are looked for in, without LiFT.
    pub features: FeatureRequest,
    /// How objects are found.
    pub method: Method,
    /// Whether the mean feature of the cells is subtracted first.
    pub is_centred: bool,
    /// Objects to look for.
    pub n_objects: usize,
    /// What their cells look like: [`MaskFormat::Bits`], [`MaskFormat::Rle`], or [`MaskFormat::Nothing`] when they are not wanted.
    pub cells: MaskFormat,
}

/// An object of an image.
#[derive(Clone, Debug)]
pub struct FoundObject {
    /// Around its cells, in pixels of the original.
    pub bounds: Rect,
    /// Centre `[x, y]` of the cell that it grew from, in pixels of the original.
    pub seed: [f64; 2],
    /// How far it stands out.
    pub score: f32,
    /// Number of its cells.
    pub n_cells: usize,
    /// Its cells, when they are wanted; the index is its place.
    pub mask: Option<ClassMask>,
}

/// The answer to a [`DiscoverRequest`].
#[derive(Debug)]
pub struct Discovered {
    /// The map that was searched.
    pub map: MapInfo,
    /// In the order in which they were found.
    pub objects: Vec<FoundObject>,
    /// Where the time went.
    pub timing: Timing,
    /// Its place among the requests in flight.
    pub place: Arc<Admitted>,
}

impl DiscoverRequest {
    /// Refuses numbers that no method takes.
    fn check(&self) -> Result<(), InferError> {
        if !(1..=MAX_OBJECTS).contains(&self.n_objects) {
            return Err(InferError::invalid("n_objects", format!("{} lies outside 1 to {MAX_OBJECTS}", self.n_objects)));
        }
        match self.method {
            Method::Lost { gram_bias } if !gram_bias.is_finite() => {
                Err(InferError::invalid("lost.gram_bias", format!("{gram_bias} is no finite number")))
            }
            Method::TokenCut { tau, .. } if !(-1.0..=1.0).contains(&tau) => {
                Err(InferError::invalid("token_cut.tau", format!("{tau} lies outside [-1, 1]")))
            }
            Method::TokenCut { max_corners, .. } if max_corners > CORNERS => {
                Err(InferError::invalid("token_cut.max_corners", format!("{max_corners} lies outside 0 to {CORNERS}")))
            }
            _ => match self.cells {
                MaskFormat::Bits | MaskFormat::Rle | MaskFormat::Nothing => Ok(()),
                _ => Err(InferError::invalid("cells", "must be BITS, RLE or NONE")),
            },
        }
    }
}

impl Engine {
    /// Looks for the objects of one image.
    ///
    /// # Errors
    /// See [`InferError`]; nothing of a failed request stays behind, and no other request is affected.
    pub async fn discover(&self, request: DiscoverRequest, clock: Clock) -> Result<Discovered, InferError> {
        let model = self.model(&request.input.model)?;
        let outcome = self.run_discover(&model, request, clock).await;
        model.statistics().request(1, clock.arrived.elapsed(), outcome.as_ref().ok().map(|done| &done.timing));
        outcome
    }

    async fn run_discover(
        &self,
        model: &Arc<LoadedModel>,
        request: DiscoverRequest,
        clock: Clock,
    ) -> Result<Discovered, InferError> {
        request.check()?;
        let DiscoverRequest { input, features, method, is_centred, n_objects, cells } = request;
        let features = with_defaults(features, model.manifest());
        let n_channels = u64::from(model.manifest().architecture.width);
        let n_bytes = |[rows, cols]: [usize; 2]| {
            let n_cells = rows.saturating_mul(cols);
            if n_cells > MAX_CELLS {
                let message =
                    format!("makes a map of {rows} x {cols} cells, the limit is {MAX_CELLS} in all: ask for a smaller input");
                let field = if features.lift_passes > Some(0) { "features.lift_passes" } else { "preprocess" };
                return Err(InferError::invalid(field, message));
            }
            // The search, and the map without its mean.
            Ok(Search::n_bytes(n_cells as u64, n_channels).saturating_add(4 * n_cells as u64 * n_channels))
        };
        let ready = self.ready(model, (&input, features.clone()), |_sizes, grid| n_bytes(grid), clock).await?;
        let map = ready.map(model, clock).await?;
        let (timing, ended, place) = (map.timing, map.ended, Arc::clone(&map.place));
        let work = move |wanted: &Wanted| {
            let search = begin(&map, method, is_centred)?;
            let found = search.take(n_objects).take_while(|_object| wanted.is_wanted()).enumerate();
            let objects = found.map(|(idx, object)| to_object(idx, &object, &map.about, cells)).collect::<Result<_, _>>()?;
            Ok::<_, InferError>((map.about, objects))
        };
        let (map, objects) = self.cpu().run_steps("while looking for objects", clock.deadline, work).await??;
        let timing = Timing { postprocess: ended.elapsed(), total: clock.arrived.elapsed(), ..timing };
        Ok(Discovered { map, objects, timing, place })
    }
}

/// The model's default on the backbone's own grid, unless others are asked for. Where nobody chose one, which leaves the final normed
/// tokens, keys of the last block, as in both papers.
fn with_defaults(features: FeatureRequest, manifest: &Manifest) -> FeatureRequest {
    let Tap { facet, layer } = manifest.backbone.default;
    let is_chosen = facet != Facet::NormToken;
    let last = manifest.backbone.layers.iter().max().copied().unwrap_or(layer);
    FeatureRequest {
        facet: features.facet.or(Some(if is_chosen { facet } else { Facet::Key })),
        layer: features.layer.or(Some(if is_chosen { layer } else { last })),
        lift_passes: features.lift_passes.or(Some(0)),
        ..features
    }
}

/// A search on the cells that show the image.
fn begin(map: &ImageMap, method: Method, is_centred: bool) -> Result<Search, InferError> {
    let shown = map.shown();
    let values = if is_centred { Cow::Owned(centred(&shown, map.map.channels())) } else { shown };
    Search::new(&values, map.about.grid, method).map_err(|error| InferError::internal("looking for objects", error))
}

fn to_object(idx: usize, object: &Discovery, about: &MapInfo, cells: MaskFormat) -> Result<FoundObject, InferError> {
    let Discovery { cells: is_inside, seed, bounds, score } = object;
    #[expect(clippy::cast_precision_loss, reason = "grids are far smaller than 2^53")]
    let seed = about.point_at(seed.map(|axis| axis as f64));
    let n_cells = is_inside.iter().filter(|is_inside| **is_inside).count();
    let mask = match cells {
        MaskFormat::Nothing => None,
        format => {
            let mask = BitMask::of_pixels(about.grid[0], about.grid[1], is_inside).map_err(mask_failed)?;
            Some(MaskEncoder::new(format, 0.0, &MaskLimits::default()).encode(idx, mask).map_err(mask_failed)?)
        }
    };
    Ok(FoundObject { bounds: about.rect(bounds.rows, bounds.cols), seed, score: *score, n_cells, mask })
}
