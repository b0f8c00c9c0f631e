//! `Discover`: objects of one image.

use densevit::{
    grpc::pb::v1::{self as pb, discover_request::Method, mask::Mask as Form},
    masks::Rle,
};
use tonic::Code;

use crate::support::{TestServer, client, encoded, features, heavy, jpeg, png, request, server, server_with};

fn message(height: u32, width: u32) -> pb::DiscoverRequest {
    let pb::ExtractRequest { image, preprocess, .. } = request(encoded(png(height, width)), features(0));
    pb::DiscoverRequest { image, preprocess, ..Default::default() }
}

async fn discover(server: &TestServer, message: pb::DiscoverRequest) -> pb::DiscoverResponse {
    client(server).await.discover(message).await.unwrap().into_inner()
}

#[tokio::test]
async fn objects_are_cells_of_the_last_keys_and_their_boxes_pixels_of_the_image() {
    let server = server().await;
    // 50 x 70 pixels become 48 x 64 (patch 16): 3 x 4 cells.
    for method in [Method::TokenCut(pb::TokenCut::default()), Method::Lost(pb::Lost { gram_bias: -1.0 })] {
        let asked = pb::DiscoverRequest { method: Some(method), cells: pb::MaskFormat::Bits.into(), ..message(50, 70) };
        let found = discover(&server, asked).await;
        let map = found.map.as_ref().unwrap();
        assert_eq!((map.facet(), map.layer, map.lift_passes, map.rows, map.cols), (pb::Facet::Key, 1, 0, 3, 4));
        let [object] = &found.objects[..] else { panic!("{found:?}") };
        let Some(Form::Bits(bits)) = object.mask.as_ref().unwrap().mask.as_ref() else { panic!("{object:?}") };
        let inside: Vec<(usize, usize)> = (0..3)
            .flat_map(|row| (0..4).map(move |col| (row, col)))
            .filter(|(row, col)| bits[*row] >> (7 - col) & 1 == 1)
            .collect();
        assert_eq!(object.n_cells as usize, inside.len());
        let [top, bottom] = [inside[0].0, inside[inside.len() - 1].0 + 1];
        let cols = inside.iter().map(|(_, col)| *col);
        let [left, right] = [cols.clone().min().unwrap(), cols.max().unwrap() + 1];
        // A cell covers 50 / 3 x 70 / 4 pixels of the image.
        let (height, width) = (50.0 / 3.0, 17.5);
        let expected = [left as f64 * width, top as f64 * height, (right - left) as f64 * width, (bottom - top) as f64 * height];
        let bounds = object.r#box.unwrap();
        for (got, expected) in [bounds.x, bounds.y, bounds.width, bounds.height].iter().zip(expected) {
            assert!((got - expected).abs() < 1e-9, "{bounds:?}, not {expected:?}");
        }
        let seed = object.seed.unwrap();
        assert!(inside.contains(&((seed.y / height) as usize, (seed.x / width) as usize)), "{seed:?} lies in {inside:?}");
        assert!(object.score.abs() <= 2.0);
        assert!(found.timing.unwrap().backbone_ms > 0.0);
    }
    server.stop().await;
}

#[tokio::test]
async fn several_objects_share_no_cell_and_run_lengths_say_what_bits_say() {
    let server = server().await;
    let asked = |cells: pb::MaskFormat| pb::DiscoverRequest { n_objects: 3, cells: cells.into(), ..message(128, 160) };
    let (bits, runs) =
        (discover(&server, asked(pb::MaskFormat::Bits)).await, discover(&server, asked(pb::MaskFormat::Rle)).await);
    assert!(bits.objects.len() > 1, "{bits:?}");
    let mut n_covered = vec![0; 80];
    for (object, same) in bits.objects.iter().zip(&runs.objects) {
        let Some(Form::Bits(bits)) = &object.mask.as_ref().unwrap().mask else { panic!("{object:?}") };
        let Some(Form::Rle(counts)) = &same.mask.as_ref().unwrap().mask else { panic!("{same:?}") };
        let mask = Rle::from_coco_string(8, 10, std::str::from_utf8(counts).unwrap()).unwrap().decode().unwrap();
        assert_eq!(mask.bits(), &bits[..]);
        n_covered.iter_mut().enumerate().for_each(|(cell, n)| *n += u32::from(mask.is_set(cell / 10, cell % 10)));
        assert_eq!(u64::from(object.n_cells), mask.area_px());
    }
    assert!(n_covered.iter().all(|n| *n <= 1), "{n_covered:?}");
    let plain = discover(&server, message(128, 160)).await;
    assert!(plain.objects.len() == 1 && plain.objects[0].mask.is_none(), "one object, no cells unless asked for");
    server.stop().await;
}

#[tokio::test]
async fn what_a_letterbox_fills_is_no_object() {
    let server = server().await;
    // 32 x 128 pixels in 128 x 128: the lower three quarters of the input are filled.
    let size = pb::Size { height: 128, width: 128 };
    let fit = pb::Preprocess { resize: Some(pb::preprocess::Resize::Letterbox(size)), ..Default::default() };
    let found = discover(&server, pb::DiscoverRequest { preprocess: Some(fit), n_objects: 16, ..message(32, 128) }).await;
    let map = found.map.as_ref().unwrap();
    assert_eq!((map.rows, map.cols), (2, 8));
    for object in &found.objects {
        let bounds = object.r#box.unwrap();
        assert!(bounds.y + bounds.height <= 32.0 && bounds.x + bounds.width <= 128.0, "{bounds:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_the_name_of_its_field() {
    // As many pixels as a map of more cells than are searched needs.
    let server = server_with(&[("limits.max_input_pixels", "1100000")]).await;
    let cut = |tau| Some(Method::TokenCut(pb::TokenCut { tau: Some(tau), ..Default::default() }));
    let corners = Some(Method::TokenCut(pb::TokenCut { max_corners: Some(5), ..Default::default() }));
    let lost = |gram_bias| Some(Method::Lost(pb::Lost { gram_bias }));
    let exact = |side: u32| {
        let size = pb::Size { height: side, width: side };
        Some(pb::Preprocess { resize: Some(pb::preprocess::Resize::Exact(size)), ..Default::default() })
    };
    let lift = |passes| Some(pb::MapOptions { facet: pb::Facet::Key.into(), layer: Some(1), lift_passes: Some(passes) });
    let token = Some(pb::MapOptions { facet: 99, ..Default::default() });
    let good = || message(48, 64);
    let cases = [
        (pb::DiscoverRequest { method: cut(1.5), ..good() }, "token_cut.tau", "[-1, 1]"),
        (pb::DiscoverRequest { method: cut(f32::NAN), ..good() }, "token_cut.tau", "[-1, 1]"),
        (pb::DiscoverRequest { method: corners, ..good() }, "token_cut.max_corners", "0 to 4"),
        (pb::DiscoverRequest { method: lost(f32::INFINITY), ..good() }, "lost.gram_bias", "finite"),
        (pb::DiscoverRequest { n_objects: 17, ..good() }, "n_objects", "1 to 16"),
        (pb::DiscoverRequest { cells: pb::MaskFormat::Scores.into(), ..good() }, "cells", "BITS, RLE or NONE"),
        (pb::DiscoverRequest { cells: 99, ..good() }, "cells", "enum"),
        // 65 x 65 cells.
        (pb::DiscoverRequest { preprocess: exact(1040), ..good() }, "preprocess", "4096"),
        (pb::DiscoverRequest { preprocess: exact(528), features: lift(1), ..good() }, "features.lift_passes", "4096"),
        (pb::DiscoverRequest { features: token, ..good() }, "features.facet", "enum"),
        (pb::DiscoverRequest { image: None, ..good() }, "image", "required"),
        (pb::DiscoverRequest { image: Some(encoded(jpeg(32, 32).slice(..100))), ..good() }, "image.encoded", ""),
    ];
    for (asked, field, words) in cases {
        let refused = client(&server).await.discover(asked).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().starts_with(&format!("{field}: ")) && refused.message().contains(words), "{refused}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_search_counts_what_it_will_need_among_the_bytes_in_flight_and_leaves_with_its_caller() {
    // 4,096 cells: 64 MiB for the products of all pairs alone.
    let server = server_with(&[("limits.max_in_flight_bytes", "60000000"), ("limits.max_tenant_percent", "100")]).await;
    let large = pb::DiscoverRequest { image: heavy().image, preprocess: heavy().preprocess, ..Default::default() };
    let refused = client(&server).await.discover(large.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("limits.max_in_flight_bytes"), "{refused}");
    server.stop().await;

    let server = crate::support::server().await;
    let mut caller = client(&server).await;
    let call = tokio::spawn(async move { caller.discover(pb::DiscoverRequest { n_objects: 16, ..large }).await });
    server.busy().await;
    call.abort();
    server.idle().await;
    discover(&server, message(48, 64)).await;
    server.stop().await;
}
