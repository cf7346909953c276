# syntax=docker/dockerfile:1
ARG GO_VERSION=1.24
FROM golang:${GO_VERSION}-alpine AS build
WORKDIR /src
RUN apk add --no-cache git make
COPY go.mod go.sum ./
RUN go mod download
COPY cmd ./cmd
COPY internal ./internal
ARG VERSION=dev
ENV CGO_ENABLED=0 GOFLAGS="-trimpath -mod=readonly"
RUN go build -ldflags="-s -w -X main.version=${VERSION}" -o /out/server ./cmd/server \
 && go vet ./...

FROM build AS test
RUN go test ./...

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/server /server
USER 65532:65532
EXPOSE 8080 9090/tcp
ENTRYPOINT ["/server"]
CMD ["--listen", ":8080"]
