//! The menu of outputs: each option against what the plain answer says.

use densevit::grpc::pb::v1 as pb;
use half::f16;

use crate::support::{TestServer, client, encoded, f32s, features, png, request, server};

const HEIGHT: u32 = 64;
const WIDTH: u32 = 96;
/// Channels of the tiny models.
const C: usize = 64;

async fn ask(server: &TestServer, options: pb::FeatureOptions) -> (pb::FeatureHeader, Vec<u8>) {
    let message = request(encoded(png(HEIGHT, WIDTH)), options);
    let answer = client(server).await.extract(message).await.unwrap().into_inner();
    (answer.header.unwrap(), answer.data.to_vec())
}

#[tokio::test]
async fn half_precision_is_the_rounded_single_precision() {
    let server = server().await;
    let (_, single) = ask(&server, features(1)).await;
    let (header, half) = ask(&server, pb::FeatureOptions { dtype: pb::DType::DtypeF16 as i32, ..features(1) }).await;
    assert_eq!(header.data_bytes as usize, single.len() / 2);
    let half: Vec<f16> = half.chunks_exact(2).map(|bytes| f16::from_le_bytes([bytes[0], bytes[1]])).collect();
    assert_eq!(half, f32s(&single).iter().map(|value| f16::from_f32(*value)).collect::<Vec<_>>());
    server.stop().await;
}

#[tokio::test]
async fn eight_bits_come_back_within_half_a_step_of_each_channel() {
    let server = server().await;
    let (_, single) = ask(&server, features(0)).await;
    let (header, bytes) = ask(&server, pb::FeatureOptions { dtype: pb::DType::DtypeI8 as i32, ..features(0) }).await;
    assert_eq!(header.scale.len(), C);
    for (idx, (value, byte)) in f32s(&single).iter().zip(&bytes).enumerate() {
        let scale = header.scale[idx % C];
        let error = (value - f32::from(byte.cast_signed()) * scale).abs();
        assert!(error <= 0.5001 * scale, "value {idx}: {value} is off by {error}, step {scale}");
    }
    server.stop().await;
}

#[tokio::test]
async fn channels_first_is_the_transpose() {
    let server = server().await;
    let (_, hwc) = ask(&server, features(0)).await;
    let (_, chw) = ask(&server, pb::FeatureOptions { layout: pb::Layout::Chw as i32, ..features(0) }).await;
    let (hwc, chw) = (f32s(&hwc), f32s(&chw));
    let n_cells = 4 * 6;
    for cell in 0..n_cells {
        for channel in 0..C {
            assert_eq!(hwc[cell * C + channel], chw[channel * n_cells + cell]);
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn normalised_descriptors_have_unit_length_and_the_same_direction() {
    let server = server().await;
    let (_, plain) = ask(&server, features(0)).await;
    let options = pb::FeatureOptions { l2_normalize: true, cls_token: true, ..features(0) };
    let (header, unit) = ask(&server, options).await;
    let length = |descriptor: &[f32]| descriptor.iter().map(|value| value * value).sum::<f32>().sqrt();
    for (unit, plain) in f32s(&unit).chunks(C).zip(f32s(&plain).chunks(C)) {
        assert!((length(unit) - 1.0).abs() < 1e-5);
        let cosine = unit.iter().zip(plain).map(|(a, b)| a * b).sum::<f32>() / length(plain);
        assert!((cosine - 1.0).abs() < 1e-5);
    }
    assert!((length(&f32s(&header.cls_token)) - 1.0).abs() < 1e-5, "the CLS token follows the same rule");
    server.stop().await;
}

#[tokio::test]
async fn a_region_is_the_cells_that_touch_it_and_says_where_they_are() {
    let server = server().await;
    let (whole_header, whole) = ask(&server, features(0)).await;
    // Cells are 16 px: x 20..50 touches columns 1..=3, y 0..17 touches rows 0..=1.
    let region = Some(pb::Box { x: 20.0, y: 0.0, width: 30.0, height: 17.0 });
    let (header, part) = ask(&server, pb::FeatureOptions { region, ..features(0) }).await;
    assert_eq!((header.rows, header.cols, header.row_offset, header.col_offset), (2, 3, 0, 1));
    assert_eq!((header.grid_rows, header.grid_cols), (4, 6));
    let (whole, part) = (f32s(&whole), f32s(&part));
    for row in 0..2 {
        assert_eq!(part[row * 3 * C..(row + 1) * 3 * C], whole[(row * 6 + 1) * C..(row * 6 + 4) * C]);
    }
    let (whole_affine, affine) = (whole_header.grid_to_image.unwrap(), header.grid_to_image.unwrap());
    assert_eq!((affine.x0, affine.y0), (whole_affine.x0 + whole_affine.dx, whole_affine.y0));
    server.stop().await;
}

#[tokio::test]
async fn points_are_interpolated_between_cell_centres() {
    let server = server().await;
    let (_, whole) = ask(&server, features(0)).await;
    let whole = f32s(&whole);
    // (8, 8) is the centre of cell (0, 0); (16, 8) lies half way to cell (0, 1); (0, 0) is clamped to cell (0, 0).
    let points = [(8.0, 8.0), (16.0, 8.0), (0.0, 0.0)].map(|(x, y)| pb::Point { x, y }).to_vec();
    let (header, answer) = ask(&server, pb::FeatureOptions { points, ..features(0) }).await;
    assert_eq!((header.n_points, header.rows, header.cols, header.channels), (3, 0, 0, 64));
    let answer = f32s(&answer);
    for channel in 0..C {
        let (first, second) = (whole[channel], whole[C + channel]);
        let expected = [first, f32::midpoint(first, second), first];
        for (point, expected) in expected.into_iter().enumerate() {
            let got = answer[point * C + channel];
            assert!(
                (got - expected).abs() <= 1e-5 * expected.abs().max(1.0),
                "point {point}, channel {channel}: {got}, not {expected}"
            );
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn register_tokens_come_from_a_model_that_has_them() {
    let server = server().await;
    let options = pb::FeatureOptions { register_tokens: true, cls_token: true, ..Default::default() };
    let model = Some(pb::ModelRef { name: "registers".into(), ..Default::default() });
    let message = pb::ExtractRequest { model, ..request(encoded(png(28, 28)), options) };
    let header = client(&server).await.extract(message).await.unwrap().into_inner().header.unwrap();
    assert_eq!(header.register_tokens.len(), 4 * C * 4);
    assert_eq!(header.cls_token.len(), C * 4);
    server.stop().await;
}

#[tokio::test]
async fn letterboxed_images_relate_cells_to_the_original_and_crop_shifts_them() {
    let server = server().await;
    let size = pb::Size { height: 64, width: 64 };
    let mut message = request(encoded(png(32, 64)), features(0));
    message.preprocess = Some(pb::Preprocess { resize: Some(pb::preprocess::Resize::Letterbox(size)), ..Default::default() });
    let header = client(&server).await.extract(message.clone()).await.unwrap().into_inner().header.unwrap();
    assert_eq!(header.grid_to_image, Some(pb::Affine { x0: 8.0, dx: 16.0, y0: 8.0, dy: 16.0 }), "no scaling, filled below");
    let crop = Some(pb::Box { x: 32.0, y: 0.0, width: 32.0, height: 32.0 });
    message.preprocess = Some(pb::Preprocess { resize: Some(pb::preprocess::Resize::Exact(size)), crop, ..Default::default() });
    let header = client(&server).await.extract(message).await.unwrap().into_inner().header.unwrap();
    assert_eq!(header.grid_to_image, Some(pb::Affine { x0: 36.0, dx: 8.0, y0: 4.0, dy: 8.0 }));
    server.stop().await;
}
