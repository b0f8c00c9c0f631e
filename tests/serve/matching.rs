//! `Match`: points of one image in another.

use densevit::grpc::pb::v1 as pb;
use tonic::Code;

use crate::support::{client, encoded, jpeg, raw, server};

const CELL: u32 = 16;

/// A picture without repetition, of which a part at `(left, top)` is taken: neighbouring pixels are independent.
fn noise(height: u32, width: u32, [left, top]: [u32; 2]) -> pb::Image {
    let level = |x: u32, y: u32, channel: u32| {
        let mut state =
            (x.wrapping_mul(0x9E37_79B1) ^ y.wrapping_mul(0x85EB_CA6B) ^ channel.wrapping_mul(0xC2B2_AE35)).wrapping_add(1);
        state ^= state >> 15;
        state = state.wrapping_mul(0x2C1B_3C6D);
        (state >> 24) as u8
    };
    let pixels = (top..top + height).flat_map(|y| (left..left + width).map(move |x| (x, y)));
    let data: Vec<u8> = pixels.flat_map(|(x, y)| (0..3).map(move |channel| level(x, y, channel))).collect();
    raw(&pb::RawImage { height, width, data: data.into() })
}

/// The patch embedding's own neighbourhood: what a block makes of a patch depends little on where it stands.
fn message(source: pb::Image, target: pb::Image, points: &[[f64; 2]]) -> pb::MatchRequest {
    let native = pb::Preprocess { resize: Some(pb::preprocess::Resize::Native(true)), ..Default::default() };
    pb::MatchRequest {
        source: Some(source),
        target: Some(target),
        preprocess: Some(native),
        features: Some(pb::MapOptions { facet: pb::Facet::Key.into(), layer: Some(0), lift_passes: Some(0) }),
        points: points.iter().map(|[x, y]| pb::Point { x: *x, y: *y }).collect(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_picture_is_found_in_itself() {
    let server = server().await;
    let points = [[24.0, 8.0], [8.0, 56.0], [72.0, 40.0]];
    let asked = message(noise(64, 80, [0, 0]), noise(64, 80, [0, 0]), &points);
    let found = client(&server).await.r#match(pb::MatchRequest { refine: Some(false), ..asked }).await.unwrap().into_inner();
    assert_eq!(found.matches.len(), 3);
    for (found, [x, y]) in found.matches.iter().zip(points) {
        let at = found.point.unwrap();
        assert!((at.x - x).abs() < 1e-9 && (at.y - y).abs() < 1e-9, "{found:?}, not ({x}, {y})");
        assert!(found.score > 0.999 && found.margin > 0.0 && found.is_mutual, "{found:?}");
        assert_eq!(found.back.map(|back| (back.x, back.y)), Some((x, y)));
    }
    let (source, timing) = (found.source.unwrap(), found.timing.unwrap());
    assert_eq!((source.rows, source.cols, source.facet(), source.layer), (4, 5, pb::Facet::Key, 0));
    assert_eq!(timing.batch_size, 2, "images of one size share a run");
    server.stop().await;
}

#[tokio::test]
async fn places_are_pixels_of_the_target_whatever_its_size() {
    let server = server().await;
    // The target is twice as large in pixels, and brought to the size of the source.
    let fit = pb::Preprocess {
        resize: Some(pb::preprocess::Resize::Exact(pb::Size { height: 64, width: 80 })),
        interpolation: pb::Interpolation::Nearest.into(),
        ..Default::default()
    };
    let large = {
        let Some(pb::image::Source::Raw(small)) = noise(64, 80, [0, 0]).source else { unreachable!() };
        let pixel = |x: usize, y: usize| small.data[3 * (y * 80 + x)..][..3].to_vec();
        let data: Vec<u8> = (0..128)
            .flat_map(|y| (0..160).flat_map(move |x| [x / 2, y / 2]))
            .collect::<Vec<_>>()
            .chunks(2)
            .flat_map(|at| pixel(at[0], at[1]))
            .collect();
        raw(&pb::RawImage { height: 128, width: 160, data: data.into() })
    };
    let asked = message(noise(64, 80, [0, 0]), large, &[[24.0, 8.0], [72.0, 40.0]]);
    let asked = pb::MatchRequest { target_preprocess: Some(fit), refine: Some(false), ..asked };
    let found = client(&server).await.r#match(asked).await.unwrap().into_inner();
    let places: Vec<(f64, f64)> = found.matches.iter().map(|found| found.point.unwrap()).map(|at| (at.x, at.y)).collect();
    assert_eq!(places, [(48.0, 16.0), (144.0, 80.0)]);
    assert_eq!(found.target.unwrap().original, Some(pb::Size { height: 128, width: 160 }));
    server.stop().await;
}

#[tokio::test]
async fn a_shifted_picture_is_found_where_it_went() {
    let server = server().await;
    // The target shows what lies two cells further right and one further down.
    let (source, target) = (noise(96, 128, [0, 0]), noise(96, 128, [2 * CELL, CELL]));
    let points: Vec<[f64; 2]> =
        (2..5).flat_map(|row| (3..7).map(move |col| [f64::from(col * 16 + 8), f64::from(row * 16 + 8)])).collect();
    let found = client(&server).await.r#match(message(source, target, &points)).await.unwrap().into_inner();
    let is_near = |(found, [x, y]): (&pb::PointMatch, &[f64; 2])| {
        let at = found.point.unwrap();
        (at.x - (x - 32.0)).abs() <= 16.0 && (at.y - (y - 16.0)).abs() <= 16.0
    };
    let n_near = found.matches.iter().zip(&points).filter(|pair| is_near(*pair)).count();
    assert!(n_near >= 10, "{n_near} of {} points within a cell: {found:?}", points.len());
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_the_name_of_its_field() {
    let server = server().await;
    let image = || noise(64, 80, [0, 0]);
    let good = |points: &[[f64; 2]]| message(image(), image(), points);
    let many = vec![[1.0, 1.0]; 4097];
    let broken = || Some(encoded(jpeg(32, 32).slice(..100)));
    let outside = pb::Box { x: 500.0, y: 0.0, width: 8.0, height: 8.0 };
    let crop = Some(pb::Preprocess { crop: Some(outside), ..Default::default() });
    let wide = pb::Preprocess {
        resize: Some(pb::preprocess::Resize::Exact(pb::Size { height: 1024, width: 1024 })),
        ..Default::default()
    };
    let lifted = pb::MapOptions { facet: pb::Facet::Key.into(), layer: Some(1), lift_passes: Some(1) };
    let cases = [
        (good(&[]), "points", "1 to 4096"),
        (good(&many), "points", "1 to 4096"),
        (good(&[[1.0, 1.0], [81.0, 5.0]]), "points[1]", "outside"),
        (good(&[[1.0, 1.0], [5.0, -0.1]]), "points[1]", "outside"),
        (good(&[[f64::NAN, 1.0]]), "points[0]", "finite"),
        (pb::MatchRequest { source: None, ..good(&[[1.0, 1.0]]) }, "source", "required"),
        (pb::MatchRequest { target: None, ..good(&[[1.0, 1.0]]) }, "target", "required"),
        (pb::MatchRequest { source: broken(), ..good(&[[1.0, 1.0]]) }, "source.encoded", ""),
        (pb::MatchRequest { target: broken(), ..good(&[[1.0, 1.0]]) }, "target.encoded", ""),
        (pb::MatchRequest { preprocess: crop, ..good(&[[1.0, 1.0]]) }, "preprocess.crop", ""),
        (pb::MatchRequest { target_preprocess: crop, ..good(&[[1.0, 1.0]]) }, "target_preprocess.crop", ""),
        // 4,096 points on 128 x 128 cells are just as many as may be; with another 32 x 32 times 4 they are not.
        (
            pb::MatchRequest {
                preprocess: Some(pb::Preprocess {
                    resize: Some(pb::preprocess::Resize::Exact(pb::Size { height: 1040, width: 1008 })),
                    ..wide
                }),
                features: Some(pb::MapOptions { lift_passes: Some(2), ..lifted }),
                ..good(&many[1..])
            },
            "points",
            "67108864",
        ),
    ];
    for (asked, field, words) in cases {
        let refused = client(&server).await.r#match(asked).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().starts_with(&format!("{field}: ")) && refused.message().contains(words), "{refused}");
    }
    server.stop().await;
}
