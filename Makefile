# The two commands: `make demo` and `make test`.

RBUILD := $(or $(CARGO_TARGET_DIR),target)/release/rbuild
TEST_PACKAGES := busybox-static docker-registry skopeo umoci mmdebstrap uidmap openssl zstd git ca-certificates openssh-server openssh-client strace qemu-user-static passt docker.io podman python3-venv

.PHONY: demo test bench binary
demo: binary
	@if [ "$$(id -u)" = 0 ]; then scripts/install busybox-static mmdebstrap || true; fi
	@scripts/demo $(RBUILD)

bench: binary
	bench/run

binary:
	cargo build --release --locked -p rbuild-cli

test:
	@scripts/install $(TEST_PACKAGES)
	@scripts/s3-server $(dir $(RBUILD))../s3-server || true
	@scripts/foreign-busybox arm64 $(dir $(RBUILD))../foreign/busybox-arm64 || true
	scripts/test
