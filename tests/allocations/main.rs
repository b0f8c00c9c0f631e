//! How often the bytes of a tensor are given new memory on their way through the server, counted by the allocator of this process. Memory
//! of ONNX Runtime is not among it: the output of a run is written there once, and goes to the connection from there.
//!
//! # Design
//! A copy of a tensor needs a buffer of its size, so large allocations are the copies; that the very buffers reach the connection is tested
//! beside `src/grpc/tail.rs`. Small allocations (messages, headers, channels) must not grow with the tensor. Counting needs an allocator
//! of the whole process, hence a test binary of its own, whose tests take turns.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod counting;
mod service;

use std::{
    net::SocketAddr,
    sync::{Mutex, OnceLock, PoisonError},
};

use densevit::grpc::pb::v1::{self as pb, DType, image::Source};
use tonic::transport::Channel;

use crate::{
    counting::{Count, count, leave_out_this_thread},
    service::{connect, extract, infer, kserve, map_bytes, pixels, png, raw, start, vision},
};

/// Sides of the images, in pixels.
const SMALL: u32 = 128;
const LARGE: u32 = 512;
/// More than a frame of the transport (256 KiB), less than any tensor of the large image: 768 KiB of pixels, 1 MiB of map in fp32, half of
/// that in fp16.
const LARGE_FROM: usize = 400 << 10;
/// What a message holds beside its pixels, and what a buffer that grows in steps may have too much.
const ROOM: usize = 16 << 10;
/// Allocations of one request, at most; there were 120 to 190 on 2026-11-26.
const MAX_ALLOCATIONS: usize = 300;
/// What a larger image may cost more: 256 KiB a frame on its way in make three more, each of two or three allocations, and some are chance.
const MAX_MORE: usize = 30;

/// A way to ask.
#[derive(Clone, Copy, Debug)]
enum Way {
    Extract,
    Chunked,
    Stream,
    Infer,
    InferStream,
}

const WAYS: [Way; 5] = [Way::Extract, Way::Chunked, Way::Stream, Way::Infer, Way::InferStream];

/// Runs a test on a thread that is not counted, one test at a time.
fn alone<F: Future<Output = ()>>(test: impl FnOnce(Channel) -> F) {
    static TURN: Mutex<()> = Mutex::new(());
    static SERVER: OnceLock<SocketAddr> = OnceLock::new();
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let address = *SERVER.get_or_init(start);
    leave_out_this_thread();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { test(connect(address).await).await });
}

/// Asks for the map of raw pixels. Returns the bytes of the map.
async fn ask(channel: &Channel, way: Way, side: u32) -> usize {
    match way {
        Way::Extract => ask_for(channel, raw(side), DType::DtypeF32).await,
        Way::Chunked => {
            let request = extract(raw(side), DType::DtypeF32);
            let (mut chunks, mut n_bytes) = (vision(channel).extract_chunked(request).await.unwrap().into_inner(), 0);
            while let Some(chunk) = chunks.message().await.unwrap() {
                if let Some(pb::extract_chunk::Part::Band(band)) = chunk.part {
                    n_bytes += band.data.len();
                }
            }
            n_bytes
        }
        Way::Stream => {
            let request = pb::ExtractStreamRequest { request: Some(extract(raw(side), DType::DtypeF32)), ..Default::default() };
            let mut answers = vision(channel).extract_stream(tokio_stream::iter([request])).await.unwrap().into_inner();
            let answer = answers.message().await.unwrap().unwrap();
            let Some(pb::extract_stream_response::Result::Response(answer)) = answer.result else { panic!("{answer:?}") };
            answer.data.len()
        }
        Way::Infer => kserve(channel).model_infer(infer(side)).await.unwrap().into_inner().raw_output_contents[0].len(),
        Way::InferStream => {
            let mut answers = kserve(channel).model_stream_infer(tokio_stream::iter([infer(side)])).await.unwrap().into_inner();
            let answer = answers.message().await.unwrap().unwrap();
            assert!(answer.error_message.is_empty(), "{}", answer.error_message);
            answer.infer_response.unwrap().raw_output_contents[0].len()
        }
    }
}

/// Asks for a map in one message.
async fn ask_for(channel: &Channel, source: Source, dtype: DType) -> usize {
    vision(channel).extract(extract(source, dtype)).await.unwrap().into_inner().data.len()
}

/// What a request allocates when it is not the first of its kind.
async fn warm<F: Future<Output = usize>>(expected_bytes: usize, ask: impl Fn() -> F) -> Count {
    for _ in 0..2 {
        ask().await;
    }
    let (n_bytes, counted) = count(LARGE_FROM, ask()).await;
    assert_eq!(n_bytes, expected_bytes);
    counted
}

#[test]
fn pixels_are_moved_once_on_the_way_in_and_maps_never_on_the_way_out() {
    alone(|channel| async move {
        for way in WAYS {
            let counted = warm(map_bytes(LARGE, 4), || ask(&channel, way, LARGE)).await;
            let [received] = counted.large[..] else { panic!("{way:?}: {counted:?}") };
            let n_bytes = pixels(LARGE).len();
            assert!((n_bytes..n_bytes + ROOM).contains(&received), "{way:?}: {received} bytes for {n_bytes} of pixels");
        }
    });
}

#[test]
fn a_file_is_decoded_to_where_the_run_reads_it() {
    alone(|channel| async move {
        let file = png(LARGE);
        let counted = warm(map_bytes(LARGE, 4), || ask_for(&channel, file.clone(), DType::DtypeF32)).await;
        assert_eq!(counted.large, [pixels(LARGE).len()]);
    });
}

#[test]
fn half_precision_costs_one_buffer_of_its_size() {
    alone(|channel| async move {
        let file = png(LARGE);
        let counted = warm(map_bytes(LARGE, 2), || ask_for(&channel, file.clone(), DType::DtypeF16)).await;
        assert_eq!(counted.large, [pixels(LARGE).len(), map_bytes(LARGE, 2)]);
    });
}

#[test]
fn small_allocations_are_bounded_and_do_not_grow_with_the_tensor() {
    alone(|channel| async move {
        for way in WAYS {
            let mut fewest = [usize::MAX; 2];
            // Timers and pings of the connection come in between; the fewest are the request's own.
            for _ in 0..5 {
                for (fewest, side) in fewest.iter_mut().zip([SMALL, LARGE]) {
                    let counted = warm(map_bytes(side, 4), || ask(&channel, way, side)).await;
                    *fewest = counted.n_allocations.min(*fewest);
                }
            }
            let [small, large] = fewest;
            println!("{way:?}: {small} allocations, {large} for a tensor of sixteen times the size");
            assert!(small <= MAX_ALLOCATIONS, "{way:?}: {small}");
            assert!(large <= small + MAX_MORE, "{way:?}: {large} instead of {small}");
        }
    });
}
