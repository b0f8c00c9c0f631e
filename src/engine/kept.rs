//! Answers as the cache keeps them: in buffers of their own, counted byte by byte, under a checksum.

use std::sync::Arc;

use bytemuck::cast_slice;
use bytes::Bytes;
use crc32fast::Hasher;

use crate::{
    engine::{Admitted, ClassArea, ClassMask, Extracted, LoadedModel, MaskData, Segmented, Timing},
    postprocess::Encoded,
    tensor::F32View,
};

/// An answer that can be kept. Its clones share its tensors, rasters and bit masks.
pub(super) trait Keep: Clone + Send + Sync + 'static {
    /// The same in buffers that nothing else shares, without times.
    fn detached(&self) -> Self;

    /// Memory that it holds, its own included, in bytes; exact for what is detached.
    fn n_bytes(&self) -> usize;

    /// Everything that goes out as it lies in memory.
    fn buffers(&self) -> Vec<&[u8]>;

    /// The model that gave it.
    fn model(&self) -> &Arc<LoadedModel>;

    /// Where the time went.
    fn timing(&self) -> Timing;

    /// The same with other times.
    fn with_timing(self, timing: Timing) -> Self;

    /// The same with a place among the requests in flight.
    fn with_place(self, place: Option<Arc<Admitted>>) -> Self;

    /// Its place among the requests in flight.
    fn take_place(&mut self) -> Option<Arc<Admitted>>;

    /// As one of all kinds.
    fn into_answer(self) -> Answer;

    /// The answer, if it is of this kind.
    fn of(answer: &Answer) -> Option<&Self>;
}

/// An answer of some kind.
#[derive(Debug)]
pub(super) enum Answer {
    Features(Box<Extracted>),
    Masks(Box<Segmented>),
}

/// An answer and what proves it.
#[derive(Debug)]
pub(super) struct Kept {
    answer: Answer,
    /// Of all buffers; none for what is handed on but not kept.
    checksum: Option<u32>,
    /// Of the run that gave it.
    pub(super) timing: Timing,
}

impl Kept {
    /// Hands an answer on.
    pub(super) fn passing<T: Keep>(answer: T) -> Self {
        Self { checksum: None, timing: answer.timing(), answer: answer.into_answer() }
    }

    /// Copies an answer into buffers of its own. Takes the time of a copy and a checksum.
    pub(super) fn copied<T: Keep>(answer: &T) -> Self {
        let own = answer.detached();
        Self { checksum: Some(checksum(&own)), timing: answer.timing(), answer: own.into_answer() }
    }

    /// Memory of an answer with all that stands around it, in bytes.
    pub(super) fn n_bytes<T: Keep>(answer: &T) -> usize {
        // Beside the value, an `Arc` holds two counts.
        2 * size_of::<usize>() + size_of::<Self>() + answer.n_bytes()
    }

    /// The model that gave it.
    pub(super) fn model(&self) -> &Arc<LoadedModel> {
        match &self.answer {
            Answer::Features(extracted) => extracted.model(),
            Answer::Masks(segmented) => segmented.model(),
        }
    }

    /// The answer, if it is of this kind.
    pub(super) fn answer<T: Keep>(&self) -> Option<&T> {
        T::of(&self.answer)
    }

    /// Whether it is what was kept, of the model with this digest. Takes the time of a checksum.
    pub(super) fn is_intact<T: Keep>(&self, digest: &str) -> bool {
        let is_same = |answer: &T| self.checksum == Some(checksum(answer)) && answer.model().digest() == digest;
        self.answer().is_some_and(is_same)
    }
}

/// CRC-32 of all buffers and of their lengths.
fn checksum<T: Keep>(answer: &T) -> u32 {
    let mut hasher = Hasher::new();
    for buffer in answer.buffers() {
        hasher.update(&(buffer.len() as u64).to_le_bytes());
        hasher.update(buffer);
    }
    hasher.finalize()
}

impl Keep for Extracted {
    fn detached(&self) -> Self {
        let Encoded { dims, scale, data } = &self.tensor;
        let own = |view: &F32View| F32View::from(view.to_vec());
        Self {
            tensor: Encoded { dims: dims.clone(), scale: scale.clone(), data: Bytes::copy_from_slice(data) },
            cls_token: self.cls_token.as_ref().map(own),
            register_tokens: self.register_tokens.as_ref().map(own),
            warnings: self.warnings.clone(),
            timing: Timing::default(),
            place: None,
            ..self.clone()
        }
    }

    fn n_bytes(&self) -> usize {
        // Without `..`: whoever adds a field says what it holds.
        let Self {
            model: _,
            tap: _,
            lift_passes: _,
            dtype: _,
            layout: _,
            tensor: Encoded { dims, scale, data },
            grid: _,
            extent: _,
            stride: _,
            geometry: _,
            cls_token,
            register_tokens,
            l2_normalize: _,
            warnings,
            timing: _,
            place: _,
        } = self;
        let tokens = [cls_token, register_tokens].into_iter().flatten().map(|view| size_of_val(&**view));
        size_of::<Self>() + size_of_val(&**dims) + size_of_val(&**scale) + data.len() + tokens.sum::<usize>() + texts(warnings)
    }

    fn buffers(&self) -> Vec<&[u8]> {
        let tokens = [&self.cls_token, &self.register_tokens].into_iter().flatten().map(|view| cast_slice(view));
        [&*self.tensor.data, cast_slice(&self.tensor.scale)].into_iter().chain(tokens).collect()
    }

    fn model(&self) -> &Arc<LoadedModel> {
        &self.model
    }

    fn timing(&self) -> Timing {
        self.timing
    }

    fn with_timing(self, timing: Timing) -> Self {
        Self { timing, ..self }
    }

    fn with_place(self, place: Option<Arc<Admitted>>) -> Self {
        Self { place, ..self }
    }

    fn take_place(&mut self) -> Option<Arc<Admitted>> {
        self.place.take()
    }

    fn into_answer(self) -> Answer {
        Answer::Features(Box::new(self))
    }

    fn of(answer: &Answer) -> Option<&Self> {
        match answer {
            Answer::Features(extracted) => Some(extracted),
            Answer::Masks(_) => None,
        }
    }
}

impl Keep for Segmented {
    fn detached(&self) -> Self {
        let own = |mask: &ClassMask| match &mask.mask {
            MaskData::Bits(bits) => ClassMask { mask: MaskData::Bits(Bytes::copy_from_slice(bits)), ..*mask },
            MaskData::Rle(_) | MaskData::Polygons(_) => mask.clone(),
        };
        Self {
            classes: self.classes.clone(),
            data: Bytes::copy_from_slice(&self.data),
            scores: self.scores.as_ref().map(|scores| Bytes::copy_from_slice(scores)),
            masks: self.masks.iter().map(own).collect(),
            features: self.features.as_ref().map(Keep::detached),
            timing: Timing::default(),
            place: None,
            ..self.clone()
        }
    }

    fn n_bytes(&self) -> usize {
        let Self {
            model: _,
            format: _,
            size: _,
            raster: _,
            label_bytes: _,
            classes,
            data,
            scores,
            unit_bytes: _,
            masks,
            geometry: _,
            n_windows: _,
            features,
            // Of labels along a video, which are not kept.
            palette: _,
            warnings,
            timing: _,
            place: _,
        } = self;
        let of_features = features.as_ref().map(|features| features.n_bytes() - size_of::<Extracted>()).unwrap_or_default();
        let of_masks = masks.iter().map(|mask| size_of::<ClassMask>() + mask_bytes(&mask.mask)).sum::<usize>();
        let rasters = data.len() + scores.as_ref().map(Bytes::len).unwrap_or_default();
        size_of::<Self>() + classes.len() * size_of::<ClassArea>() + rasters + of_masks + of_features + texts(warnings)
    }

    fn buffers(&self) -> Vec<&[u8]> {
        let masks = self.masks.iter().filter_map(|mask| match &mask.mask {
            MaskData::Bits(bits) => Some(&**bits),
            MaskData::Rle(runs) => Some(runs.as_bytes()),
            MaskData::Polygons(_) => None,
        });
        let features = self.features.iter().flat_map(Keep::buffers);
        [&*self.data].into_iter().chain(self.scores.as_deref()).chain(masks).chain(features).collect()
    }

    fn model(&self) -> &Arc<LoadedModel> {
        &self.model
    }

    fn timing(&self) -> Timing {
        self.timing
    }

    fn with_timing(mut self, timing: Timing) -> Self {
        self.features.iter_mut().for_each(|features| features.timing = timing);
        Self { timing, ..self }
    }

    fn with_place(self, place: Option<Arc<Admitted>>) -> Self {
        Self { place, ..self }
    }

    fn take_place(&mut self) -> Option<Arc<Admitted>> {
        self.place.take()
    }

    fn into_answer(self) -> Answer {
        Answer::Masks(Box::new(self))
    }

    fn of(answer: &Answer) -> Option<&Self> {
        match answer {
            Answer::Masks(segmented) => Some(segmented),
            Answer::Features(_) => None,
        }
    }
}

/// What a mask holds outside of itself, in bytes.
fn mask_bytes(mask: &MaskData) -> usize {
    match mask {
        MaskData::Bits(bits) => bits.len(),
        MaskData::Rle(runs) => runs.len(),
        MaskData::Polygons(polygons) => {
            let holes =
                |holes: &[Vec<[u32; 2]>]| size_of_val(holes) + holes.iter().map(|hole| size_of_val(&**hole)).sum::<usize>();
            let outlines = polygons.iter().map(|polygon| size_of_val(&*polygon.outer) + holes(&polygon.holes));
            size_of_val(&**polygons) + outlines.sum::<usize>()
        }
    }
}

fn texts(texts: &[String]) -> usize {
    size_of_val(texts) + texts.iter().map(String::len).sum::<usize>()
}
