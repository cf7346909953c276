FROM debian:bookworm AS toolchain
RUN dpkg --add-architecture arm64 \
 && apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      cmake ninja-build crossbuild-essential-arm64 \
      libssl-dev:arm64 \
      zlib1g-dev:arm64 \
 && rm -rf /var/lib/apt/lists/*
ENV CC=aarch64-linux-gnu-gcc \
    CXX=aarch64-linux-gnu-g++ \
    PKG_CONFIG_PATH=/usr/lib/aarch64-linux-gnu/pkgconfig

FROM toolchain AS build
COPY . /src
RUN cmake -S /src -B /build -G Ninja -DCMAKE_BUILD_TYPE=Release \
          -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
 && cmake --build /build \
 && DESTDIR=/install cmake --install /build --strip

FROM --platform=linux/arm64 gcr.io/distroless/cc-debian12
COPY --from=build /install /
ENTRYPOINT ["/usr/local/bin/daemon"]
