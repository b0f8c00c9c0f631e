//! Student and teacher: a backbone with what turns its tokens into likenesses to prototypes.

use std::collections::BTreeMap;

use tch::{Device, Tensor, nn};

use crate::{
    pretrain::{
        aggregation::{Aggregated, Aggregation},
        config::PretrainConfig,
        neighbours::{Around, Border},
        projection::{Projection, ProjectionShape},
    },
    vit::{Source, Vit, VitOptions},
};

/// Whose part a network plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Learns; patches speak for themselves.
    Student,
    /// Follows; neighbours speak for patches.
    Teacher,
}

/// A backbone and its heads.
#[derive(Debug)]
pub struct Network {
    vit: Vit,
    patches: Option<PatchHeads>,
    image: Projection,
    role: Role,
}

/// What SelfPatch adds to DINO.
#[derive(Debug)]
struct PatchHeads {
    aggregation: Aggregation,
    projection: Projection,
    border: Border,
    n_neighbours: i64,
    /// By grid.
    around: BTreeMap<[i64; 2], Around>,
}

/// Likenesses to prototypes.
#[derive(Debug)]
pub struct Likeness {
    /// `[B, K]`.
    pub image: Tensor,
    /// `[B, N, K]`, of SelfPatch.
    pub patches: Option<Tensor>,
}

impl Network {
    /// A network that begins with the weights of `source`, its heads fresh.
    #[must_use]
    pub fn new(root: &nn::Path<'_>, source: Source, config: &PretrainConfig, role: Role) -> Self {
        let (channels, heads) = (i64::from(source.arch().width), i64::from(source.arch().heads));
        let PretrainConfig { hidden, bottleneck, norm_last_layer, .. } = *config;
        let projection = |name: &str, prototypes: i64| {
            let shape = ProjectionShape { channels, hidden, bottleneck, prototypes, norm_last_layer };
            Projection::new(&(root / name), shape)
        };
        let drop_path = if role == Role::Student { config.drop_path } else { 0.0 };
        let patch_heads = || PatchHeads {
            aggregation: Aggregation::new(&(root / "aggregation"), channels, heads),
            projection: projection("patch_head", config.patch_prototypes),
            border: config.neighbours,
            n_neighbours: config.n_neighbours,
            around: BTreeMap::new(),
        };
        Self {
            vit: Vit::new(&(root / "backbone"), source, VitOptions { drop_path, ..VitOptions::default() }),
            patches: config.selfpatch.then(patch_heads),
            image: projection("image_head", config.prototypes),
            role,
        }
    }

    /// Likenesses of a batch.
    ///
    /// # Shapes
    /// - `pixels`: `[B, 3, H, W]` f32, normalised; sides are multiples of the patch
    pub fn forward(&mut self, pixels: &Tensor) -> Likeness {
        let tokens = self.vit.tokens(pixels, self.role == Role::Student);
        match &mut self.patches {
            None => {
                // Settings see to it that there is one.
                let cls = tokens.cls.unwrap_or_else(|| mean(&tokens.patches));
                Likeness { image: self.image.forward(&self.vit.normed(&cls)), patches: None }
            }
            Some(heads) => {
                let Aggregated { image, patches } = heads.aggregated(&tokens.patches, tokens.grid, self.role);
                Likeness { image: self.image.forward(&image), patches: Some(heads.projection.forward(&patches)) }
            }
        }
    }

    /// What stands for an image, `[B, D]`, and for its patches, `[B, N, D]`, in the backbone that is exported.
    pub fn descriptors(&mut self, pixels: &Tensor) -> [Tensor; 2] {
        let tokens = self.vit.tokens(pixels, false);
        let patches = self.vit.normed(&tokens.patches);
        let image = tokens.cls.map_or_else(|| mean(&patches), |cls| self.vit.normed(&cls));
        [image, patches]
    }

    /// The backbone.
    pub fn vit(&mut self) -> &mut Vit {
        &mut self.vit
    }
}

impl PatchHeads {
    fn aggregated(&mut self, patches: &Tensor, grid: [i64; 2], role: Role) -> Aggregated {
        if role == Role::Student {
            return self.aggregation.forward(patches, None);
        }
        let (border, device): (Border, Device) = (self.border, patches.device());
        let around = self.around.entry(grid).or_insert_with(|| Around::new(grid, border, device));
        let chosen = around.choose(patches, self.n_neighbours);
        self.aggregation.forward(patches, Some(&chosen))
    }
}

/// The mean of tokens, `[B, D]`.
fn mean(tokens: &Tensor) -> Tensor {
    tokens.mean_dim([1i64].as_slice(), false, tch::Kind::Float)
}
