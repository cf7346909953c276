FROM alpine:3.21
RUN apk add --no-cache bash curl jq \
  && curl -fsSL "https://example.org/tool-$(uname -m).tar.gz" | tar xz -C /usr/local/bin
ENTRYPOINT [ "tool" ]
