//! Chunked segmentations: a header, then masks or bands, then the parts of the features.

use std::vec;

use crate::{
    engine::{ClassMask, Segmented},
    grpc::{
        chunks::{Chunks, MAX_BAND_BYTES, band},
        pb::v1 as pb,
        segment_answer,
        tail::Tailed,
    },
    postprocess::{BandRange, bands_of},
};

/// Numbers of the fields `SegmentChunk.band` and `SegmentChunk.features`.
const BAND: u32 = 3;
const FEATURES: u32 = 4;

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
}

impl Iterator for SegmentChunks {
    type Item = Tailed<pb::SegmentChunk>;

    fn next(&mut self) -> Option<Tailed<pb::SegmentChunk>> {
        use pb::segment_chunk::Part;
        let chunk = |part| pb::SegmentChunk { part };
        if let Some(header) = self.header.take() {
            return Some(chunk(Some(Part::Header(header))).into());
        }
        if let Some(mask) = self.masks.next() {
            return Some(chunk(Some(Part::Mask(segment_answer::mask(mask)))).into());
        }
        if let Some(range) = self.bands.next() {
            return Some(band(&self.data, &range).inside(BAND, |band| chunk(band.map(Part::Band))));
        }
        let features = self.features.as_mut()?.next()?;
        Some(features.inside(FEATURES, |features| chunk(features.map(Part::Features))))
    }
}
