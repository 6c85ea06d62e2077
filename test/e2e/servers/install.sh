#!/usr/bin/env bash
# What the tests with real servers need: PostgreSQL's programs (from Debian's packages if there are none, which wants
# root or sudo) and the S3 server (built into ./bin). It starts nothing, and is quick when all is there.
set -euo pipefail
cd "$(dirname "$0")/../../.."

has_postgres() { compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || command -v postgres >/dev/null; }

if ! has_postgres; then
	if ! command -v apt-get >/dev/null; then
		echo "no PostgreSQL below /usr/lib/postgresql or in PATH, and no apt-get to install it: install its server programs" >&2
		exit 1
	fi
	as_root=()
	[ "$(id -u)" = 0 ] || as_root=(sudo)
	apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" >/dev/null; }
	apt update
	# The common package first: its settings keep the server's package from making a cluster and starting it.
	apt install -y --no-install-recommends postgresql-common
	"${as_root[@]}" sed -i -E 's/^#? *create_main_cluster *=.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
	apt install -y --no-install-recommends postgresql
	has_postgres
fi
echo "PostgreSQL: $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null || command -v postgres)"
echo "S3 server: $(go run ./test/e2e/servers/build)"
