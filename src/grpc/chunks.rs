//! Chunked answers: a header, then bands of the tensor that fit any client's receive limit.

use bytes::Bytes;

use crate::{
    engine::Extracted,
    grpc::{
        answer,
        pb::v1 as pb,
        tail::{Tail, Tailed},
    },
    postprocess::{BandRange, bands, crc32},
};

/// Most bytes of tensor in one message. Clients receive 4 MiB by default; 1 MiB leaves room for the rest of the message and
/// lets the first band arrive early.
pub const MAX_BAND_BYTES: usize = 1 << 20;

/// Numbers of the fields `ExtractChunk.band` and `Band.data`.
const BAND: u32 = 2;
const DATA: u32 = 15;

/// The parts of an answer, in order. Bands are slices of the one tensor: no copy is made here.
#[derive(Debug)]
pub struct Chunks {
    extracted: Extracted,
    bands: Vec<BandRange>,
    /// 0 is the header, `i + 1` is band `i`.
    next: usize,
}

impl Chunks {
    /// Splits an answer.
    #[must_use]
    pub fn new(extracted: Extracted) -> Self {
        let bands = bands(&extracted.tensor.dims, extracted.dtype, MAX_BAND_BYTES);
        Self { extracted, bands, next: 0 }
    }

    fn header(&self) -> pb::ExtractChunk {
        let header = pb::ChunkedHeader {
            header: Some(answer::header(&self.extracted)),
            n_bands: u32::try_from(self.bands.len()).unwrap_or(u32::MAX),
        };
        pb::ExtractChunk { part: Some(pb::extract_chunk::Part::Header(header)) }
    }
}

/// A band of a buffer, with its checksum.
pub(super) fn band(data: &Bytes, range: &BandRange) -> Tailed<pb::Band> {
    let data = data.slice(range.byte_range.clone());
    let to_u32 = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let [index, begin, count] = [range.index, range.begin, range.count].map(to_u32);
    let message = pb::Band { index, begin, count, crc32: crc32(&data), data: Bytes::new() };
    let mut tail = Tail::default();
    tail.push(DATA, [data]);
    tail.after(message)
}

impl Iterator for Chunks {
    type Item = Tailed<pb::ExtractChunk>;

    fn next(&mut self) -> Option<Tailed<pb::ExtractChunk>> {
        let part = match self.next {
            0 => self.header().into(),
            idx => {
                let band = band(&self.extracted.tensor.data, self.bands.get(idx - 1)?);
                band.inside(BAND, |band| pb::ExtractChunk { part: band.map(pb::extract_chunk::Part::Band) })
            }
        };
        self.next += 1;
        Some(part)
    }
}
