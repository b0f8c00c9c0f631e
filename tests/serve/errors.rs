//! Bad input: a clear error that names the field and the limit, with the right code, and nobody else is hurt.

use bytes::Bytes;
use densevit::grpc::pb::v1 as pb;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{client, encoded, features, jpeg, png, png_header, request, server, server_with};

async fn refused(server: &crate::support::TestServer, message: pb::ExtractRequest) -> Status {
    client(server).await.extract(message).await.expect_err("must be refused")
}

fn with_points(points: &[(f64, f64)]) -> pb::FeatureOptions {
    let points = points.iter().map(|&(x, y)| pb::Point { x, y }).collect();
    pb::FeatureOptions { points, ..features(0) }
}

fn resized(resize: pb::preprocess::Resize) -> pb::ExtractRequest {
    let preprocess = Some(pb::Preprocess { resize: Some(resize), ..Default::default() });
    pb::ExtractRequest { preprocess, ..request(encoded(png(32, 32)), features(0)) }
}

#[tokio::test]
async fn every_bad_request_names_its_field_and_what_is_wrong() {
    use pb::preprocess::Resize;
    let server = server().await;
    let whole = jpeg(64, 64);
    let truncated = whole.slice(..whole.len() / 2);
    let good = || encoded(png(32, 32));
    let crop = pb::Box { x: 100.0, y: 100.0, width: 10.0, height: 10.0 };
    let raw_image = pb::RawImage { height: 4, width: 4, data: Bytes::from_static(&[0; 47]) };
    let raw_source = pb::Image { source: Some(pb::image::Source::Raw(raw_image)) };
    let region = pb::FeatureOptions { region: Some(crop), ..features(0) };
    let huge = pb::Size { height: 16_000_000, width: 16_000_000 };
    let cases: Vec<(&str, pb::ExtractRequest, &str, &str)> = vec![
        ("truncated JPEG", request(encoded(truncated), features(0)), "image.encoded", "JPEG"),
        ("zero bytes", request(encoded(Bytes::new()), features(0)), "image.encoded", "empty"),
        ("no image", pb::ExtractRequest { image: None, ..request(good(), features(0)) }, "image", "required"),
        ("60,000 x 60,000 header", request(encoded(png_header(60_000, 60_000)), features(0)), "image.encoded", "3600000000"),
        ("short raw", request(raw_source, features(0)), "image.raw.data", "48"),
        ("facet not offered", request(good(), pb::FeatureOptions { facet: 17, ..features(0) }), "features.facet", "17"),
        ("layer not there", request(good(), pb::FeatureOptions { layer: Some(12), ..features(0) }), "features.layer", "0, 1"),
        ("five passes", request(good(), features(5)), "features.lift_passes", "4"),
        (
            "LiFT on another facet",
            request(good(), pb::FeatureOptions { facet: pb::Facet::Query as i32, ..features(1) }),
            "features.lift_passes",
            "block 1",
        ),
        (
            "registers of none",
            request(good(), pb::FeatureOptions { register_tokens: true, ..features(0) }),
            "features.register_tokens",
            "no register",
        ),
        ("point outside", request(good(), with_points(&[(3.0, 3.0), (32.5, 1.0)])), "features.points[1]", "32 x 32"),
        ("region outside", request(good(), region), "features.region", "32 x 32"),
        ("odd size", resized(Resize::Exact(pb::Size { height: 33, width: 32 })), "preprocess.exact", "16"),
        ("zero size", resized(Resize::Exact(pb::Size { height: 0, width: 32 })), "preprocess.exact", "16"),
        ("huge size", resized(Resize::Exact(huge)), "preprocess.exact", "max_input_pixels"),
        ("zero short side", resized(Resize::ShortSide(0)), "preprocess.short_side", "0"),
        ("huge short side", resized(Resize::ShortSide(u32::MAX)), "preprocess.short_side", "max_input_pixels"),
        (
            "crop outside",
            pb::ExtractRequest {
                preprocess: Some(pb::Preprocess { crop: Some(crop), ..Default::default() }),
                ..request(good(), features(0))
            },
            "preprocess.crop",
            "32",
        ),
    ];
    for (what, message, field, words) in cases {
        let status = refused(&server, message).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status}");
        assert!(status.message().starts_with(&format!("{field}:")), "{what}: {}", status.message());
        assert!(status.message().contains(words), "{what}: {} must say {words:?}", status.message());
        let violations = status.get_details_bad_request().expect("details").field_violations;
        assert_eq!(violations[0].field, field, "{what}");
    }
    // The server is as it was.
    client(&server).await.extract(request(good(), features(1))).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn unknown_models_and_versions_are_not_found_and_the_known_ones_named() {
    let server = server().await;
    let ask = |name: &str, version: &str| {
        let model = Some(pb::ModelRef { name: name.into(), version: version.into() });
        pb::ExtractRequest { model, ..request(encoded(png(32, 32)), features(0)) }
    };
    let unknown = refused(&server, ask("huge", "")).await;
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(unknown.message().contains("registers, tiny"), "{}", unknown.message());
    let version = refused(&server, ask("tiny", "9")).await;
    assert_eq!(version.code(), Code::NotFound);
    let malformed = refused(&server, ask("tiny", "latest")).await;
    assert_eq!(malformed.code(), Code::InvalidArgument);
    assert!(malformed.message().starts_with("model.version:"), "{}", malformed.message());
    server.stop().await;
}

#[tokio::test]
async fn size_limits_are_named_with_their_key() {
    let limits = [("limits.max_image_bytes", "1000"), ("limits.max_points", "2"), ("grpc.max_message_bytes", "100000")];
    let server = server_with(&limits).await;
    let big = refused(&server, request(encoded(Bytes::from(vec![7; 1001])), features(0))).await;
    assert_eq!(big.code(), Code::InvalidArgument);
    assert!(big.message().contains("1001") && big.message().contains("1000"), "{}", big.message());
    let points = refused(&server, request(encoded(png(16, 16)), with_points(&[(1.0, 1.0); 3]))).await;
    assert!(points.message().contains("limits.max_points"), "{}", points.message());
    let message = refused(&server, request(encoded(Bytes::from(vec![7; 200_000])), features(0))).await;
    assert_eq!(message.code(), Code::ResourceExhausted, "as other gRPC servers say it: {message}");
    assert!(message.message().contains("100000"), "{}", message.message());
    server.stop().await;
}

#[tokio::test]
async fn bytes_that_are_no_message_are_the_callers_fault_and_hurt_nobody() {
    use densevit::grpc::client::{Client, Method};
    let server = server().await;
    let client = Client::connect(&server.address().to_string()).await.unwrap();
    for method in
        ["densevit.v1.DenseVision.Extract", "densevit.v1.DenseVision/Segment", "inference.GRPCInferenceService.ModelInfer"]
    {
        let call = client.call(&Method::find(method).unwrap());
        // A field that promises more bytes than there are.
        let ended = call.send(Bytes::from_static(&[0x0A, 0x7F, 0x00]), std::time::Duration::from_secs(30)).await;
        assert!(ended.code == "InvalidArgument" && ended.message.contains("decode"), "{method}: {ended:?}");
    }
    assert_eq!(client.models().await.unwrap().len(), 2);
    server.stop().await;
}
