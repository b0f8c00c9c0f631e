# syntax=docker/dockerfile:1
# densevit as an image: one program, ONNX Runtime, and the libraries that both need; no shell, no package manager, no model.
#
#   docker build -t densevit .                                  # CPU
#   docker build -t densevit:cuda --build-arg ORT=cuda .        # NVIDIA, CUDA 13 (host driver R580 or newer)
#   docker run --read-only --cap-drop ALL -p 50051:50051 -v "$PWD/models:/models:ro" densevit
#
# deploy/container/check.sh builds and runs it, or, without an engine, the same file system in a chroot.

ARG RUST=1.95

FROM rust:${RUST}-slim-bookworm AS build
ARG ORT=cpu
RUN apt-get update \
 && apt-get install -y --no-install-recommends binutils python3 python3-pip \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# ONNX Runtime changes less often than the code.
COPY deploy/setup deploy/setup
RUN python3 deploy/setup/fetch.py --ort ${ORT} --runtime-only
COPY . .
# Dependencies stay compiled in the cache between builds.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --locked --profile dist --bin densevit \
 && deploy/container/rootfs.sh /rootfs target/dist/densevit ${ORT}

FROM scratch
COPY --from=build /rootfs /
ENV ORT_DYLIB_PATH=/usr/lib/densevit/libonnxruntime.so \
    LD_LIBRARY_PATH=/usr/lib/densevit \
    DENSEVIT__MODELS__DIR=/models \
    DENSEVIT__LOG__FORMAT=json
USER 65532:65532
EXPOSE 50051 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["/usr/bin/densevit", "health"]
ENTRYPOINT ["/usr/bin/densevit"]
CMD ["serve", "--config", "/etc/densevit/serve.toml"]
