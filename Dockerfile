# syntax=docker/dockerfile:1
# The CPU server, without a model: mount a model repository at /models.
#
#   docker build -t densevit .
#   docker run --read-only -p 50051:50051 -p 9090:9090 -v "$PWD/models:/models:ro" densevit
FROM rust:1.95-bookworm AS build
WORKDIR /src
# Dependencies first, on empty sources, so that a change of the code does not compile them again.
COPY Cargo.toml Cargo.lock ./
COPY proto proto
RUN mkdir -p src benches/gateway tests/golden tests/serve \
    && echo "" > src/lib.rs && echo "fn main() {}" | tee src/main.rs benches/gateway/main.rs tests/golden/main.rs > tests/serve/main.rs \
    && cargo build --profile dist --locked --bin densevit
COPY src src
RUN touch src/lib.rs src/main.rs && cargo build --profile dist --locked --bin densevit

FROM python:3.11-slim-bookworm AS fetch
WORKDIR /src
COPY deploy/setup deploy/setup
RUN python deploy/setup/fetch.py --ort cpu

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/dist/densevit /usr/local/bin/densevit
COPY --from=fetch /src/third_party/onnxruntime /opt/onnxruntime
ENV ORT_DYLIB_PATH=/opt/onnxruntime/libonnxruntime.so DENSEVIT__MODELS__DIR=/models DENSEVIT__LOG__FORMAT=json
EXPOSE 50051 9090
STOPSIGNAL SIGTERM
ENTRYPOINT ["densevit"]
CMD ["serve"]
