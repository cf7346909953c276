from busybox:1.37 as tools
run mkdir -p /tools && cp /bin/busybox /tools/
from scratch
copy --from=tools /tools /tools
env PATH /tools
label maintainer="nobody"
expose 53/udp 53/tcp 8000-8010
volume /data /cache
workdir /data
entrypoint ["/tools/busybox"]
cmd ["sh"]
