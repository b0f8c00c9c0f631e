//! Chunked segmentations: a header, then masks or bands, then the parts of the features.

use std::vec;

use crate::{
    engine::{ClassMask, Segmented},
    grpc::{
        chunks::{Chunks, MAX_BAND_BYTES, band},
        pb::v1 as pb,
        segment_answer,
    },
    postprocess::{BandRange, bands_of},
};

/// The parts of an answer, in order. Bands are slices of the one buffer: no copy is made here.
pub(super) struct SegmentChunks {
    header: Option<pb::ChunkedSegmentHeader>,
    data: bytes::Bytes,
    bands: vec::IntoIter<BandRange>,
    masks: vec::IntoIter<ClassMask>,
    features: Option<Chunks>,
}

impl SegmentChunks {
    /// Splits an answer.
    pub(super) fn new(mut segmented: Segmented) -> Self {
        let header = segment_answer::header(&segmented);
        let bands = bands_of(segmented.data.len() / segmented.unit_bytes.max(1), segmented.unit_bytes, MAX_BAND_BYTES);
        let features = segmented.features.take().map(Chunks::new);
        let n_bands = u32::try_from(bands.len()).unwrap_or(u32::MAX);
        let header = pb::ChunkedSegmentHeader { header: Some(header), n_bands, has_features: features.is_some() };
        Self {
            header: Some(header),
            data: segmented.data,
            bands: bands.into_iter(),
            masks: segmented.masks.into_iter(),
            features,
        }
    }

    fn next_part(&mut self) -> Option<pb::segment_chunk::Part> {
        use pb::segment_chunk::Part;
        if let Some(header) = self.header.take() {
            return Some(Part::Header(header));
        }
        if let Some(mask) = self.masks.next() {
            return Some(Part::Mask(segment_answer::mask(mask)));
        }
        if let Some(range) = self.bands.next() {
            return Some(Part::Band(band(&self.data, &range)));
        }
        self.features.as_mut()?.next().map(Part::Features)
    }
}

impl Iterator for SegmentChunks {
    type Item = pb::SegmentChunk;

    fn next(&mut self) -> Option<pb::SegmentChunk> {
        self.next_part().map(|part| pb::SegmentChunk { part: Some(part) })
    }
}
