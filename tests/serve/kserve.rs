//! `inference.GRPCInferenceService`, as far as the official client (`tests/python/conformance`) does not look: details of errors, the form
//! in which KServe's own clients name models, and that answers are one and the same whichever way they leave.

use std::collections::HashMap;

use bytes::Bytes;
use densevit::{
    grpc::pb::inference::{
        self as pb, InferParameter,
        grpc_inference_service_client::GrpcInferenceServiceClient,
        infer_parameter::ParameterChoice,
        model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
    },
    server::Server,
};
use tonic::{Code, Request, transport::Channel};
use tonic_types::StatusExt as _;

use crate::support::{TestServer, channel, channel_to, client, config, encoded, features, png, request, server, server_with};

async fn kserve(server: &TestServer) -> GrpcInferenceServiceClient<Channel> {
    GrpcInferenceServiceClient::new(channel(server).await).max_decoding_message_size(usize::MAX)
}

/// Features of files, as `infer`.
pub fn infer_files(files: &[&Bytes]) -> pb::ModelInferRequest {
    infer(&files.iter().copied().cloned().collect::<Vec<_>>(), &["features"])
}

/// Files at their own size, without a LiFT pass.
fn infer(files: &[Bytes], outputs: &[&str]) -> pb::ModelInferRequest {
    let length = |file: &Bytes| u32::try_from(file.len()).unwrap().to_le_bytes();
    let raw: Vec<u8> = files.iter().flat_map(|file| [&length(file)[..], file].concat()).collect();
    let shape = vec![i64::try_from(files.len()).unwrap()];
    let parameter = |choice| InferParameter { parameter_choice: Some(choice) };
    pb::ModelInferRequest {
        model_name: "tiny".into(),
        id: "7".into(),
        parameters: HashMap::from([
            ("resize".into(), parameter(ParameterChoice::StringParam("native".into()))),
            ("lift_passes".into(), parameter(ParameterChoice::Uint64Param(0))),
        ]),
        inputs: vec![InferInputTensor { name: "image".into(), datatype: "BYTES".into(), shape, ..Default::default() }],
        outputs: outputs.iter().map(|name| InferRequestedOutputTensor { name: (*name).into(), ..Default::default() }).collect(),
        raw_input_contents: vec![raw.into()],
        ..Default::default()
    }
}

#[tokio::test]
async fn single_calls_streams_and_our_own_service_give_the_same_bytes() {
    let server = server().await;
    let files = [png(32, 48), png(32, 48)];
    let own = client(&server).await.extract(request(encoded(files[0].clone()), features(0))).await.unwrap().into_inner();
    let names = ["cls_token", "features", "grid_to_image"];
    let alone = kserve(&server).await.model_infer(infer(&files[..1], &names)).await.unwrap().into_inner();
    assert_eq!(alone.outputs.iter().map(|output| output.name.as_str()).collect::<Vec<_>>(), names);
    assert_eq!(alone.outputs[1].shape, [1, 2, 3, 64]);
    assert_eq!((alone.raw_output_contents[1].clone(), alone.id.as_str()), (own.data, "7"));

    let streamed = Request::new(tokio_stream::iter([infer(&files[..1], &names), infer(&files, &names)]));
    let mut answers = kserve(&server).await.model_stream_infer(streamed).await.unwrap().into_inner();
    let first = answers.message().await.unwrap().unwrap();
    assert_eq!(first.infer_response.unwrap().raw_output_contents, alone.raw_output_contents);
    let second = answers.message().await.unwrap().unwrap().infer_response.unwrap();
    let together = kserve(&server).await.model_infer(infer(&files, &names)).await.unwrap().into_inner();
    assert_eq!(together.outputs[1].shape, [2, 2, 3, 64]);
    assert_eq!(second.raw_output_contents, together.raw_output_contents, "put together, or sent in parts");
    assert!(answers.message().await.unwrap().is_none());
    server.stop().await;
}

#[tokio::test]
async fn errors_carry_the_path_of_the_field_and_the_name_of_what_is_missing() {
    let server = server().await;
    let mut kserve = kserve(&server).await;
    let good = png(32, 48);
    let bad_image = infer(&[good.clone(), Bytes::from_static(b"no image")], &[]);
    let bad_output = infer(std::slice::from_ref(&good), &["features", "mask"]);
    let unequal = infer(&[good.clone(), png(32, 32)], &[]);
    let cases = [(bad_image, "raw_input_contents[0]"), (bad_output, "outputs[1].name"), (unequal, "raw_input_contents[0]")];
    for (message, field) in cases {
        let status = kserve.model_infer(message).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations.first().unwrap().field, field);
        assert!(status.message().starts_with(field), "{}", status.message());
    }
    let unknown = pb::ModelInferRequest { model_name: "nobody".into(), ..infer(&[good], &[]) };
    let status = kserve.model_infer(unknown).await.unwrap_err();
    assert_eq!(
        (status.code(), status.get_details_resource_info().unwrap().resource_name.as_str()),
        (Code::NotFound, "model_name")
    );
    server.stop().await;
}

#[tokio::test]
async fn until_the_models_are_warm_the_server_is_alive_and_not_ready() {
    let mut server = Server::bind(config(&[])).await.unwrap();
    let mut kserve = GrpcInferenceServiceClient::new(channel_to(server.address()).await);
    for is_loaded in [false, true] {
        if is_loaded {
            server.load().await.unwrap();
        }
        assert!(kserve.server_live(pb::ServerLiveRequest {}).await.unwrap().into_inner().live);
        assert_eq!(kserve.server_ready(pb::ServerReadyRequest {}).await.unwrap().into_inner().ready, is_loaded);
        let tiny = pb::ModelReadyRequest { name: "tiny".into(), version: String::new() };
        assert_eq!(kserve.model_ready(tiny).await.unwrap().into_inner().ready, is_loaded);
        let refused = (!is_loaded).then_some(Code::Unavailable);
        let answer = kserve.model_infer(infer(&[png(32, 32)], &[])).await;
        assert_eq!(answer.err().map(|status| status.code()), refused);
        let index = kserve.repository_index(pb::RepositoryIndexRequest::default()).await;
        assert_eq!(index.err().map(|status| status.code()), refused);
    }
    server.run(async {}).await;
}

#[tokio::test]
async fn models_are_unloaded_and_loaded_by_the_name_in_either_interface() {
    let server = server_with(&[("models.control", "true")]).await;
    let mut kserve = kserve(&server).await;
    // KServe's own interface has the name in field 1, Triton's in field 2.
    let unload = |repository: &str, model: &str| pb::RepositoryModelUnloadRequest {
        repository_name: repository.into(),
        model_name: model.into(),
        ..Default::default()
    };
    for (repository, model) in [("registers", ""), ("", "registers")] {
        kserve.repository_model_unload(unload(repository, model)).await.unwrap();
        let ready = pb::ModelReadyRequest { name: "registers".into(), version: String::new() };
        assert!(!kserve.model_ready(ready.clone()).await.unwrap().into_inner().ready);
        let load =
            pb::RepositoryModelLoadRequest { repository_name: repository.into(), model_name: model.into(), ..Default::default() };
        kserve.repository_model_load(load).await.unwrap();
        assert!(kserve.model_ready(ready).await.unwrap().into_inner().ready);
    }
    for (repository, model) in [("", ""), ("models", "registers")] {
        let status = kserve.repository_model_unload(unload(repository, model)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{repository:?} {model:?}");
    }
    server.stop().await;
}
