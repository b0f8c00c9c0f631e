# Models as an image of their own, for image volumes and nothing else: no program is in it.
#
#   docker build -t densevit-models:1 -f deploy/container/models.Dockerfile models
#   docker build -t densevit-models:2 -f deploy/container/models.Dockerfile --build-arg MODEL=my-model/1 models
FROM scratch
ARG MODEL=dinov2-vits14-imgfocus/1
COPY ${MODEL} /${MODEL}
