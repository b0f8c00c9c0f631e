//! `Extract`, `ListModels`, `GetModel`.

use densevit::grpc::pb::v1 as pb;

use crate::support::{Fixture, client, encoded, f32s, features, png, raw, request, server};

#[tokio::test]
async fn a_raw_image_gives_the_golden_features_of_the_reference() {
    let server = server().await;
    let fixture = Fixture::load();
    for (facet, name) in [(pb::Facet::Key, "key"), (pb::Facet::Token, "token"), (pb::Facet::NormToken, "norm_token")] {
        let golden = fixture.golden(name);
        let options = pb::FeatureOptions { facet: facet as i32, layer: Some(1), lift_passes: Some(0), ..Default::default() };
        let answer = client(&server).await.extract(request(raw(&fixture.image), options)).await.unwrap().into_inner();
        let header = answer.header.unwrap();
        assert_eq!((header.rows as usize, header.cols as usize), (golden.rows, golden.cols));
        golden.assert_close(&f32s(&answer.data));
    }
    server.stop().await;
}

#[tokio::test]
async fn the_answer_says_how_the_grid_lies_on_the_image() {
    let server = server().await;
    // 100 x 200 pixels, input 32 x 64: a cell of 16 input pixels covers 50 x 50 pixels of the original.
    let image = encoded(png(100, 200));
    let mut message = request(image, features(0));
    let size = pb::Size { height: 32, width: 64 };
    message.preprocess = Some(pb::Preprocess { resize: Some(pb::preprocess::Resize::Exact(size)), ..Default::default() });
    let header = client(&server).await.extract(message).await.unwrap().into_inner().header.unwrap();
    assert_eq!((header.rows, header.cols, header.grid_rows, header.grid_cols), (2, 4, 2, 4));
    assert_eq!((header.input, header.original), (Some(size), Some(pb::Size { height: 100, width: 200 })));
    assert_eq!(header.grid_to_image, Some(pb::Affine { x0: 25.0, dx: 50.0, y0: 25.0, dy: 50.0 }));
    assert!((header.stride - 16.0).abs() < 1e-12);
    let timing = header.timing.unwrap();
    assert!(timing.total_ms >= timing.backbone_ms && timing.backbone_ms > 0.0, "{timing:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_lift_pass_doubles_the_grid_and_is_the_default_of_a_model_with_a_head() {
    let server = server().await;
    let message = |options| request(encoded(png(64, 96)), options);
    let once = client(&server).await.extract(message(pb::FeatureOptions::default())).await.unwrap().into_inner();
    let header = once.header.unwrap();
    assert_eq!((header.rows, header.cols, header.lift_passes), (8, 12, 1));
    assert!((header.stride - 8.0).abs() < 1e-12);
    assert!(header.warnings.is_empty());
    let thrice = client(&server).await.extract(message(features(3))).await.unwrap().into_inner().header.unwrap();
    assert_eq!((thrice.rows, thrice.cols), (32, 48));
    assert_eq!(thrice.warnings.len(), 1, "more than two passes come with a warning");
    server.stop().await;
}

#[tokio::test]
async fn models_are_listed_with_what_may_be_asked_of_them() {
    let server = server().await;
    let models = client(&server).await.list_models(pb::ListModelsRequest {}).await.unwrap().into_inner().models;
    let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["registers", "tiny"]);
    assert_eq!(models.iter().map(|model| model.is_default).collect::<Vec<_>>(), [false, true]);
    let asked = pb::GetModelRequest { model: Some(pb::ModelRef { name: "registers".into(), version: "1".into() }) };
    let model = client(&server).await.get_model(asked).await.unwrap().into_inner();
    assert_eq!((model.registers, model.channels, model.depth), (4, 64, 2));
    assert!(model.lift.is_none());
    let head = models[1].lift.clone().unwrap();
    assert_eq!((head.form.as_str(), head.layer), ("official", 1));
    assert_eq!(models[1].provider, "cpu");
    server.stop().await;
}
