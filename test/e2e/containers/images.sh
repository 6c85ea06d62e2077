#!/usr/bin/env bash
# Docker, and the images that the tests of test/e2e/containers start, on a machine that may have no daemon and no
# registry of images: starts a daemon if none answers, and builds the images from this machine's PostgreSQL, from
# MinIO's source and, by `make image`, from this module. What it prints is the environment of the tests:
#
#	eval "$(test/e2e/containers/images.sh)"
#
# An image that is already named by STREAMHOUSE_TEST_POSTGRES_IMAGE, STREAMHOUSE_TEST_MINIO_IMAGE or STREAMHOUSE_TEST_IMAGE
# is not built.
# With --clean it removes the containers and networks that tests run in that environment have left.
set -euo pipefail
cd "$(dirname "$0")/../../.."
mkdir -p bin
exec 3>&1 1>&2 # words go to the error stream, so that what is printed can be evaluated

minio_version=v0.0.0-20260212201848-7aac2a2c5b7c # the last one that go install takes; see docs/DEPENDENCIES.md
label=streamhouse.made-of
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

answers() { docker info >/dev/null 2>&1; }

apt_install() {
	[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo "missing: $*; install it"; exit 1; }
	apt-get -qq update >/dev/null
	DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 --no-install-recommends install "$@" >/dev/null
}

engine() {
	if answers; then return; fi
	command -v dockerd >/dev/null || apt_install docker.io
	if answers; then return; fi # the package may have started it
	if ps -C dockerd -o state= | grep -qv Z; then # one that has ended and was not waited for is none
		echo "a Docker daemon runs but does not answer: a second one would take its network away"
		exit 1
	fi
	[ "$(id -u)" = 0 ] || { echo "no Docker daemon answers, and only root can start one"; exit 1; }
	rm -f /var/run/docker.pid # of a daemon that was killed; its number may be another's by now
	setsid dockerd >bin/dockerd.log 2>&1 3>&- </dev/null &
	for _ in $(seq 300); do
		if answers; then return; fi
		sleep 0.1
	done
	tail -n 20 bin/dockerd.log
	exit 1
}

# made NAME OF: whether the image is there and made of that.
made() { [ "$(docker image inspect --format "{{index .Config.Labels \"$label\"}}" "$1" 2>/dev/null)" = "$2" ]; }

# put FILE...: into the root of the image, at the same place, links followed.
put() { (cd / && cp -rL --parents -- "${@#/}" "$work/root"); }

# build NAME OF <DOCKERFILE: the image of image.tar and nothing below it. The builder that every engine has can do that.
build() {
	mkdir "$work/context"
	mv "$work/image.tar" "$work/context"
	{ printf 'FROM scratch\nADD image.tar /\nLABEL %s=%s\n' "$label" "$2" && cat; } >"$work/context/Dockerfile"
	DOCKER_BUILDKIT=0 docker build --quiet --tag "$1" "$work/context" >/dev/null 2>"$work/log" || { cat "$work/log" && exit 1; }
}

# postgres_image NAME: PostgreSQL as it is installed here, a shell, and the libraries of both.
postgres_image() {
	local bin lib share version of
	bin=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1)
	command -v busybox >/dev/null && ! ldd "$(command -v busybox)" >/dev/null 2>&1 || apt_install busybox-static
	version=$("$bin/postgres" --version)
	of=$(cat "$0" test/e2e/containers/entrypoint.sh <(echo "$version") | sha256sum | cut -d' ' -f1)
	if made "$1" "$of"; then return; fi
	lib=$("$bin/pg_config" --pkglibdir) share=$("$bin/pg_config" --sharedir)
	rm -rf "$work"/*
	mkdir -p "$work"/root/{bin,tmp,etc,usr/bin} "$work"/own/var/{lib/postgresql/data,run/postgresql}
	chmod 1777 "$work/root/tmp"
	put "$bin"/{postgres,initdb,pg_ctl,createdb,psql} "$lib" "$share" /usr/share/zoneinfo/UTC /usr/lib/locale/C.utf8
	rm -rf "$work/root$lib"/{bitcode,pgxs,llvmjit*} # what compiles; it would bring LLVM with it
	cp "$(command -v busybox)" "$work/root/bin/busybox"
	for applet in sh cat rm mkdir chmod ls env; do ln -s busybox "$work/root/bin/$applet"; done
	# shellcheck disable=SC2046 # one path a word
	put $(find "$work/root$bin" "$work/root$lib" -type f -exec ldd {} + 2>/dev/null |
		awk '$2 == "=>" { print $3 } $1 ~ /^\/lib/ && NF == 2 { print $1 }' | sort -u)
	cp test/e2e/containers/entrypoint.sh "$work/root/bin/entrypoint"
	printf 'root:x:0:0::/:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n' >"$work/root/etc/passwd"
	printf 'root:x:0:\npostgres:x:999:\n' >"$work/root/etc/group"
	chmod 700 "$work/own/var/lib/postgresql/data"
	tar -C "$work/root" --owner=0 --group=0 -cf "$work/image.tar" .
	tar -C "$work/own" --owner=999 --group=999 -rf "$work/image.tar" var
	build "$1" "$of" <<-DOCKERFILE
		ENV PATH=$bin:/bin PGDATA=/var/lib/postgresql/data LANG=C.UTF-8
		USER postgres
		VOLUME /var/lib/postgresql/data
		EXPOSE 5432
		STOPSIGNAL SIGINT
		ENTRYPOINT ["/bin/entrypoint"]
		CMD ["postgres"]
	DOCKERFILE
	echo "image $1: $version"
}

# minio_image NAME: MinIO alone, without any library.
minio_image() {
	local built=bin/minio-$minio_version
	if [ ! -x "$built" ]; then
		echo "building MinIO, which takes minutes"
		mkdir "$work/gobin"
		CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOBIN="$work/gobin" go install -trimpath -ldflags='-s -w' "github.com/minio/minio@$minio_version"
		mv "$work/gobin/minio" "$built"
	fi
	if made "$1" "$minio_version"; then return; fi
	rm -rf "$work"/*
	mkdir -p "$work"/root/{tmp,data}
	cp "$built" "$work/root/minio"
	tar -C "$work/root" --owner=0 --group=0 -cf "$work/image.tar" .
	build "$1" "$minio_version" <<-DOCKERFILE
		EXPOSE 9000
		ENTRYPOINT ["/minio"]
		CMD ["server", "/data"]
	DOCKERFILE
	echo "image $1: MinIO $minio_version"
}

# agent_image: the one binary, always of the source as it is now.
agent_image() {
	[ -r /etc/ssl/certs/ca-certificates.crt ] || apt_install ca-certificates
	make --no-print-directory image >"$work/log" 2>&1 || { cat "$work/log" && exit 1; }
}

clean() {
	docker ps --all --quiet --filter "label=streamhouse.run=${STREAMHOUSE_TEST_RUN:?is not set}" | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
	docker network ls --quiet --filter "label=streamhouse.run=$STREAMHOUSE_TEST_RUN" | xargs --no-run-if-empty docker network rm >/dev/null
}

if [ "${1:-}" = --clean ]; then
	clean
	exit
fi

exec 9>bin/.images.lock
flock 9
engine 9>&-
postgres=${STREAMHOUSE_TEST_POSTGRES_IMAGE:-} minio=${STREAMHOUSE_TEST_MINIO_IMAGE:-} agent=${STREAMHOUSE_TEST_IMAGE:-}
[ -n "$minio" ] || { minio=minio:local && minio_image "$minio"; }
if [ -z "$postgres" ] && compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; then
	postgres=postgres:local && postgres_image "$postgres" # else the test's own default is pulled
fi
[ -n "$agent" ] || { agent=streamhouse:local && agent_image; }
{
	# Ryuk, which removes what tests leave, is an image to be pulled too: --clean does its work. And in what looks like a
	# container itself the library would look for published ports elsewhere.
	echo "export TESTCONTAINERS_RYUK_DISABLED=true TESTCONTAINERS_HOST_OVERRIDE=127.0.0.1"
	echo "export STREAMHOUSE_TEST_RUN=$(cat /proc/sys/kernel/random/uuid)"
	echo "export STREAMHOUSE_TEST_POSTGRES_IMAGE=$postgres STREAMHOUSE_TEST_MINIO_IMAGE=$minio STREAMHOUSE_TEST_IMAGE=$agent"
} >&3
