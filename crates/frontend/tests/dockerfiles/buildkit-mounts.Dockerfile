# syntax=docker/dockerfile:1.9
# check=skip=JSONArgsRecommended
FROM --platform=$BUILDPLATFORM debian:trixie AS build
ARG TARGETOS TARGETARCH
RUN rm -f /etc/apt/apt.conf.d/docker-clean
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt,sharing=locked \
    apt-get update && apt-get install -y gcc make
WORKDIR /src
RUN --mount=type=bind,source=.,target=/src,rw \
    --mount=type=secret,id=token,target=/run/secrets/token \
    --mount=type=tmpfs,target=/tmp,size=64m \
    make OS=$TARGETOS ARCH=$TARGETARCH OUT=/out
RUN --mount=type=ssh git clone git@example.org:team/private.git /private
RUN --network=none ./check.sh

FROM scratch AS final
COPY --link --from=build --chmod=0755 --chown=1000:1000 /out/app /bin/app
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://example.org/x.txt /x.txt
ADD --keep-git-dir=true https://example.org/repo.git#v1.0:docs /docs
CMD /bin/app
