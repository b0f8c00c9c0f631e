//! A segmentation head in the training framework, whatever its form, and its file.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, bail, ensure};
use densevit::{import::SegmentCard, manifest::SegmentForm};
use tch::{Device, Tensor, nn};

use crate::{
    checkpoint,
    segmentation::{
        card::TrainingCard,
        forms::{Linear, Segvit, Shrunk},
        layers::Widths,
        output::Output,
    },
};

/// Shape of a head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// How it makes masks.
    pub form: SegmentForm,
    /// Number of taps.
    pub n_taps: usize,
    /// Channels of a tap (C).
    pub channels: i64,
    /// Number of classes (K).
    pub n_classes: i64,
    /// Widths of a decoder; a linear head has none.
    pub widths: Widths,
    /// Rows and columns of the training grid: that of a Shrunk head's queries.
    pub grid: [i64; 2],
}

/// A segmentation head.
#[derive(Debug)]
pub enum Head {
    /// SegViT.
    Segvit(Segvit),
    /// SegViT Shrunk.
    Shrunk(Shrunk),
    /// Linear.
    Linear(Linear),
}

/// A head from its file.
#[derive(Debug)]
pub struct Opened {
    /// The head.
    pub head: Head,
    /// Its shape.
    pub shape: Shape,
    /// Its card.
    pub card: SegmentCard,
    /// What the trainer needs to know beside it.
    pub training: TrainingCard,
    /// Trainable numbers.
    pub n_weights: u64,
}

impl Head {
    /// A head with fresh weights, under the names of its file.
    #[must_use]
    pub fn new(root: &nn::Path<'_>, shape: &Shape) -> Self {
        let Shape { form, n_taps, channels, n_classes, widths, grid } = *shape;
        match form {
            SegmentForm::Segvit => Self::Segvit(Segvit::new(root, n_taps, channels, n_classes, widths)),
            SegmentForm::Shrunk => Self::Shrunk(Shrunk::new(root, (n_taps, channels, n_classes), grid, widths)),
            SegmentForm::Linear => Self::Linear(Linear::new(root, channels, n_classes)),
        }
    }

    /// Reads maps of the taps, in the order of the card.
    ///
    /// # Shapes
    /// - `maps`: `[B, h, w, C]` each
    pub fn forward(&self, maps: &[Tensor], train: bool) -> Output {
        match self {
            Self::Segvit(head) => head.forward(maps, train),
            Self::Shrunk(head) => head.forward(maps, train),
            Self::Linear(head) => head.forward(&maps[0], train),
        }
    }
}

/// Trainable numbers of a store.
#[must_use]
pub fn n_weights(store: &nn::VarStore) -> u64 {
    store.trainable_variables().iter().map(|tensor| tensor.numel() as u64).sum()
}

/// Opens the file of a head for a backbone of so many channels.
///
/// # Errors
/// When it cannot be read, is no segmentation head, or does not fit.
pub fn open(file: &Path, channels: i64, device: Device) -> anyhow::Result<Opened> {
    let (weights, metadata) = checkpoint::read(file)?;
    let card = SegmentCard::read(file)?.with_context(|| format!("{} says of itself no segmentation head", file.display()))?;
    let training = TrainingCard::read(&metadata).with_context(|| format!("opening {}", file.display()))?;
    let shape = shape(&card, &weights, channels).with_context(|| format!("opening {}", file.display()))?;
    let store = nn::VarStore::new(device);
    let head = Head::new(&store.root(), &shape);
    let missing = checkpoint::assign(store.variables(), |name| weights.get(name));
    ensure!(missing.is_none(), "{} does not fit this model: {}", file.display(), missing.unwrap_or_default());
    let n_weights = n_weights(&store);
    Ok(Opened { head, shape, card, training, n_weights })
}

/// Shape of a head, from its card and the shapes of its tensors.
fn shape(card: &SegmentCard, weights: &BTreeMap<String, Tensor>, channels: i64) -> anyhow::Result<Shape> {
    let heads = card.heads.map_or(0, i64::from);
    let size = |name: &str| weights.get(name).map(Tensor::size).with_context(|| format!("it lacks {name}"));
    let (width, grid) = match card.form {
        SegmentForm::Linear => (0, [0, 0]),
        SegmentForm::Segvit => (size("q.weight")?[1], [0, 0]),
        SegmentForm::Shrunk => match size("qu.query")?.as_slice() {
            [width, rows, cols] => (*width, [*rows, *cols]),
            other => bail!("its qu.query has shape {other:?}"),
        },
    };
    ensure!(
        card.form == SegmentForm::Linear || (heads > 0 && width % heads == 0),
        "{heads} heads do not divide {width} channels"
    );
    ensure!(!card.taps.is_empty(), "it reads no taps");
    let n_classes = i64::try_from(card.classes.len())?;
    let widths = Widths { width, heads, dropout: 0.0 };
    Ok(Shape { form: card.form, n_taps: card.taps.len(), channels, n_classes, widths, grid })
}
