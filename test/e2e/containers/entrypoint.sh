#!/bin/sh
# The first process of the PostgreSQL image that images.sh builds. It knows the environment of the public image as
# far as tests use it: POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB. As there, the first start makes a cluster, with a server
# that nobody outside can reach, so that "ready to accept connections" is in the log twice.
set -eu
user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	(umask 077 && echo "${POSTGRES_PASSWORD:?}" >/tmp/password)
	initdb --username="$user" --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 --no-sync
	rm /tmp/password
	echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
	pg_ctl --wait --options="-c listen_addresses=''" start
	if [ "$database" != postgres ]; then createdb --username="$user" --maintenance-db=postgres "$database"; fi
	pg_ctl --wait --mode=fast stop
fi
exec "$@" -c listen_addresses='*'
