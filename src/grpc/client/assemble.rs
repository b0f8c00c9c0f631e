//! Puts the bands of a chunked answer together again.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use crate::{
    grpc::pb::v1::{self as pb, extract_chunk::Part},
    postprocess::crc32,
};

/// Why a chunked answer could not be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AssembleError {
    /// The stream ended early.
    #[error("the answer ended after {n_bands} of {expected} bands")]
    Truncated {
        /// Bands that came.
        n_bands: u32,
        /// Bands that the header announced.
        expected: u32,
    },
    /// The stream held no header first.
    #[error("the answer does not begin with a header")]
    NoHeader,
    /// A message held nothing.
    #[error("the answer holds an empty message")]
    Empty,
    /// A band is not the next one.
    #[error("band {got} came where band {expected} was due")]
    Order {
        /// Index that came.
        got: u32,
        /// Index that was due.
        expected: u32,
    },
    /// A band was damaged on the way.
    #[error("the checksum of band {index} does not fit its bytes")]
    Checksum {
        /// Index of the band.
        index: u32,
    },
    /// Masks are missing.
    #[error("the answer holds {got} masks, the header says {expected}")]
    Masks {
        /// Masks that came.
        got: u32,
        /// Masks that the header announced.
        expected: u32,
    },
    /// The bands do not add up.
    #[error("the bands hold {got} bytes, the header says {expected}")]
    Length {
        /// Bytes that came.
        got: usize,
        /// Bytes that the header announced.
        expected: u64,
    },
}

/// A feature tensor and what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// What the tensor is.
    pub header: pb::FeatureHeader,
    /// The tensor, in the element type and layout of the header.
    pub data: Bytes,
}

/// A segmentation.
#[derive(Clone, Debug, PartialEq)]
pub struct Segmentation {
    /// What the masks are.
    pub header: pb::SegmentHeader,
    /// One mask a class, for the formats that have them.
    pub masks: Vec<pb::Mask>,
    /// Labels, scores or a file, for the others.
    pub data: Bytes,
    /// Features of the same run, when asked for.
    pub features: Option<Features>,
}

/// Bands that came, in order.
#[derive(Debug, Default)]
struct Bands {
    n_bands: u32,
    data: BytesMut,
}

impl Bands {
    fn push(&mut self, band: &pb::Band) -> Result<(), AssembleError> {
        if band.index != self.n_bands {
            return Err(AssembleError::Order { got: band.index, expected: self.n_bands });
        }
        if crc32(&band.data) != band.crc32 {
            return Err(AssembleError::Checksum { index: band.index });
        }
        self.data.extend_from_slice(&band.data);
        self.n_bands += 1;
        Ok(())
    }

    fn finish(self, n_bands: u32, n_bytes: u64) -> Result<Bytes, AssembleError> {
        if self.n_bands != n_bands {
            return Err(AssembleError::Truncated { n_bands: self.n_bands, expected: n_bands });
        }
        if self.data.len() as u64 != n_bytes {
            return Err(AssembleError::Length { got: self.data.len(), expected: n_bytes });
        }
        Ok(self.data.freeze())
    }
}

/// Collects the parts of one answer.
#[derive(Debug, Default)]
pub struct Assembler {
    header: Option<pb::ChunkedHeader>,
    bands: Bands,
}

impl Assembler {
    /// Takes the next part.
    ///
    /// # Errors
    /// When the part is damaged or not the one that is due.
    pub fn push(&mut self, chunk: pb::ExtractChunk) -> Result<(), AssembleError> {
        match (chunk.part, &self.header) {
            (Some(Part::Header(header)), None) => {
                self.header = Some(header);
                Ok(())
            }
            (Some(Part::Band(band)), Some(_)) => self.bands.push(&band),
            (Some(_), _) => Err(AssembleError::NoHeader),
            (None, _) => Err(AssembleError::Empty),
        }
    }

    /// The whole tensor, once the stream has ended.
    ///
    /// # Errors
    /// When parts are missing.
    pub fn finish(self) -> Result<Features, AssembleError> {
        let chunked = self.header.ok_or(AssembleError::NoHeader)?;
        let header = chunked.header.ok_or(AssembleError::NoHeader)?;
        let data = self.bands.finish(chunked.n_bands, header.data_bytes)?;
        Ok(Features { header, data })
    }
}

/// Collects the parts of one segmentation.
#[derive(Debug, Default)]
pub struct SegmentAssembler {
    header: Option<pb::ChunkedSegmentHeader>,
    masks: Vec<pb::Mask>,
    bands: Bands,
    features: Option<Assembler>,
}

impl SegmentAssembler {
    /// Takes the next part.
    ///
    /// # Errors
    /// When the part is damaged or not the one that is due.
    pub fn push(&mut self, chunk: pb::SegmentChunk) -> Result<(), AssembleError> {
        use pb::segment_chunk::Part;
        match (chunk.part, &self.header) {
            (Some(Part::Header(header)), None) => {
                self.features = header.has_features.then(Assembler::default);
                self.header = Some(header);
                Ok(())
            }
            (Some(Part::Mask(mask)), Some(_)) => {
                self.masks.push(mask);
                Ok(())
            }
            (Some(Part::Band(band)), Some(_)) => self.bands.push(&band),
            (Some(Part::Features(chunk)), Some(_)) => self.features.as_mut().ok_or(AssembleError::NoHeader)?.push(chunk),
            (Some(_), _) => Err(AssembleError::NoHeader),
            (None, _) => Err(AssembleError::Empty),
        }
    }

    /// The whole segmentation, once the stream has ended.
    ///
    /// # Errors
    /// When parts are missing.
    pub fn finish(self) -> Result<Segmentation, AssembleError> {
        let chunked = self.header.ok_or(AssembleError::NoHeader)?;
        let header = chunked.header.ok_or(AssembleError::NoHeader)?;
        let n_masks = u32::try_from(self.masks.len()).unwrap_or(u32::MAX);
        if n_masks != header.n_masks {
            return Err(AssembleError::Masks { got: n_masks, expected: header.n_masks });
        }
        let data = self.bands.finish(chunked.n_bands, header.data_bytes)?;
        let features = self.features.map(Assembler::finish).transpose()?;
        Ok(Segmentation { header, masks: self.masks, data, features })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn header(n_bands: u32, data_bytes: u64) -> pb::ExtractChunk {
        let header = pb::FeatureHeader { data_bytes, ..Default::default() };
        pb::ExtractChunk { part: Some(Part::Header(pb::ChunkedHeader { header: Some(header), n_bands })) }
    }

    fn band(index: u32, data: &'static [u8]) -> pb::ExtractChunk {
        // CRC-32 of "123456789" is the check value 0xCBF43926 of the standard; others come from the same function.
        let band = pb::Band { index, crc32: crc32(data), data: Bytes::from_static(data), ..Default::default() };
        pb::ExtractChunk { part: Some(Part::Band(band)) }
    }

    #[test]
    fn bands_in_order_make_the_tensor() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        let mut assembler = Assembler::default();
        for part in [header(2, 5), band(0, b"abc"), band(1, b"de")] {
            assembler.push(part).unwrap();
        }
        assert_eq!(assembler.finish().unwrap().data.as_ref(), b"abcde");
    }

    #[test]
    fn damage_disorder_and_loss_are_told_apart() {
        let mut assembler = Assembler::default();
        assert_eq!(assembler.push(band(0, b"abc")), Err(AssembleError::NoHeader));
        assembler.push(header(2, 5)).unwrap();
        assert_eq!(assembler.push(band(1, b"de")), Err(AssembleError::Order { got: 1, expected: 0 }));
        let mut damaged = band(0, b"abc");
        if let Some(Part::Band(band)) = &mut damaged.part {
            band.data = Bytes::from_static(b"abd");
        }
        assert_eq!(assembler.push(damaged), Err(AssembleError::Checksum { index: 0 }));
        assembler.push(band(0, b"abc")).unwrap();
        assert_eq!(assembler.finish(), Err(AssembleError::Truncated { n_bands: 1, expected: 2 }));
    }
}
