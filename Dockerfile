# syntax=docker/dockerfile:1
# densevit as an image: one program, ONNX Runtime, and the libraries that both need; no shell, no package manager, no model.
#
#   docker build -t densevit .                                  # CPU
#   docker build -t densevit:cuda --build-arg ORT=cuda .        # NVIDIA, CUDA 13 (host driver R580 or newer)
#   docker run --read-only --cap-drop ALL -p 50051:50051 -v "$PWD/models:/models:ro" densevit
#
# deploy/container/check.sh builds and runs it, or, without an engine, the same file system in a chroot.
#
# The base has no digest here because no registry could be asked for it when this was written; builds that must repeat give one:
# --build-arg BASE=rust:1.95-slim-bookworm@sha256:... . It only compiles: of its files, glibc, libgcc and libstdc++ (for CUDA zlib) get into the image.
# Sizes without a model: 48 MB; with CUDA 2.49 GB, of which cuDNN is 0.94, cuBLAS 0.61, ONNX Runtime 0.31 (rootfs.sh; the limits are 100 MB and 2.6 GB).

ARG BASE=rust:1.95-slim-bookworm

FROM ${BASE} AS build
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
LABEL org.opencontainers.image.title=densevit \
      org.opencontainers.image.description="Dense Vision-Transformer features and masks over gRPC" \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /rootfs /
# /usr/lib64 is where NVIDIA's toolkit puts the driver's libraries into an image that is no Debian by its files.
ENV ORT_DYLIB_PATH=/usr/lib/densevit/libonnxruntime.so \
    LD_LIBRARY_PATH=/usr/lib/densevit:/usr/lib64 \
    DENSEVIT__MODELS__DIR=/models \
    DENSEVIT__LOG__FORMAT=json
USER 65532:65532
EXPOSE 50051 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["/usr/bin/densevit", "health"]
ENTRYPOINT ["/usr/bin/densevit"]
CMD ["serve", "--config", "/etc/densevit/serve.toml"]
