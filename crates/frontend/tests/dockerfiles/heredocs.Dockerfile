# syntax=docker/dockerfile:1
FROM alpine:3.21
RUN <<EOF
set -e
apk add --no-cache python3
# FROM here on it is a script
adduser -D app
EOF
RUN <<PYTHON python3
import sys
print("hello", sys.version)
PYTHON
COPY <<-"CONF" <<'LIST' /etc/app/
	listen = 8080
	name = "$not_expanded"
	CONF
one
two
LIST
COPY --chmod=755 <<EOF /usr/local/bin/start
#!/bin/sh
exec app --port ${PORT:-8080}
EOF
ENTRYPOINT ["/usr/local/bin/start"]
