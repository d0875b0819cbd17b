#!/bin/sh
# Runs once: an authority, a certificate for the server, and CLIENTS identities (client-1, client-2, ...) for clients.
# The authority's key stays in its own volume; what the others need is copied to theirs. Run again, it adds what is missing.
set -eu
umask 077
AUTHORITY=/certs/authority
HOSTS=${HOSTS:-server localhost 127.0.0.1}
CLIENTS=${CLIENTS:-16}

[ -f "$AUTHORITY/ca.key" ] || thinwire certs init --dir "$AUTHORITY" >/dev/null
# shellcheck disable=SC2086  # the hosts are words
[ -f "$AUTHORITY/server.key" ] || thinwire certs server $HOSTS --dir "$AUTHORITY" >/dev/null
[ -f "$AUTHORITY/operator.key" ] || thinwire certs operator operator --dir "$AUTHORITY" >/dev/null
missing=""
for number in $(seq "$CLIENTS"); do
    [ -f "$AUTHORITY/client-$number.key" ] || missing="$missing client-$number"
done
# shellcheck disable=SC2086
[ -z "$missing" ] || thinwire certs client $missing --dir "$AUTHORITY" >/dev/null

cp -p "$AUTHORITY/ca.pem" "$AUTHORITY/revoked.txt" "$AUTHORITY/server.pem" "$AUTHORITY/server.key" /certs/server/
cp -p "$AUTHORITY/ca.pem" "$AUTHORITY"/client-*.pem "$AUTHORITY"/client-*.key /certs/clients/
cp -p "$AUTHORITY/ca.pem" "$AUTHORITY/operator.pem" "$AUTHORITY/operator.key" /certs/operator/
echo "certificates are ready: server for $HOSTS, $CLIENTS clients"
