//! `ExtractChunked`: any size, with a client that takes 4 MiB.

use densevit::grpc::pb::v1::{self as pb, extract_chunk::Part};

use crate::support::{client, encoded, f32s, features, png, request, server};

/// Default receive limit of gRPC clients.
const FOUR_MIB: usize = 4 << 20;

#[tokio::test]
async fn a_map_of_forty_megabytes_passes_a_client_that_takes_four() {
    let server = server().await;
    // 416 x 384 pixels, patch 16, four passes: 416 x 384 cells of 64 channels, 40.9 MB as f32.
    let message = request(encoded(png(416, 384)), features(4));
    let mut client = client(&server).await.max_decoding_message_size(FOUR_MIB);
    let refused = client.extract(message.clone()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::OutOfRange, "the unary answer does not fit: {refused}");
    let mut chunks = client.extract_chunked(message).await.unwrap().into_inner();
    let Some(Part::Header(chunked)) = chunks.message().await.unwrap().unwrap().part else { panic!("the header comes first") };
    let header = chunked.header.unwrap();
    assert_eq!((header.rows, header.cols), (416, 384));
    assert_eq!(header.data_bytes, 416 * 384 * 64 * 4);
    let (mut n_bands, mut next_row, mut n_bytes) = (0, 0, 0);
    while let Some(chunk) = chunks.message().await.unwrap() {
        let Some(Part::Band(band)) = chunk.part else { panic!("bands follow") };
        assert_eq!((band.index, band.begin), (n_bands, next_row));
        assert_eq!(band.data.len(), band.count as usize * 384 * 64 * 4, "a band is whole rows");
        assert_eq!(crc32fast::hash(&band.data), band.crc32);
        n_bands += 1;
        next_row += band.count;
        n_bytes += band.data.len() as u64;
    }
    assert_eq!((n_bands, next_row, n_bytes), (chunked.n_bands, 416, header.data_bytes));
    server.stop().await;
}

#[tokio::test]
async fn bands_hold_what_the_unary_answer_holds() {
    let server = server().await;
    for layout in [pb::Layout::Hwc, pb::Layout::Chw] {
        let options = pb::FeatureOptions { layout: layout as i32, ..features(2) };
        let message = request(encoded(png(128, 160)), options);
        let whole = client(&server).await.extract(message.clone()).await.unwrap().into_inner().data;
        let mut chunks = client(&server).await.extract_chunked(message).await.unwrap().into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.message().await.unwrap() {
            if let Some(Part::Band(band)) = chunk.part {
                bytes.extend_from_slice(&band.data);
            }
        }
        assert_eq!(f32s(&bytes), f32s(&whole), "{layout:?}");
    }
    server.stop().await;
}
