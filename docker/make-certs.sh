#!/bin/sh
# Runs once: an authority, a certificate for the server under its names in Compose and on this machine, and under HOSTS,
# an operator's, and CLIENTS identities (client-1, client-2, ...) for clients.
# The authority's key stays in its own volume; what the others need is copied to theirs. Run again, it adds what is
# missing, signs the server's anew where HOSTS has changed, and hands on what was revoked.
set -eu
umask 077
ROOT=${ROOT:-/certs}
AUTHORITY=$ROOT/authority
HOSTS="server localhost 127.0.0.1 ${HOSTS:-}"
CLIENTS=${CLIENTS:-32}

[ -f "$AUTHORITY/ca.key" ] || thinwire certs init --dir "$AUTHORITY" >/dev/null
if [ "$HOSTS" != "$(cat "$AUTHORITY/hosts.txt" 2>/dev/null)" ]; then
    # shellcheck disable=SC2086  # the hosts are words
    thinwire certs server $HOSTS --dir "$AUTHORITY" --force >/dev/null
    echo "$HOSTS" >"$AUTHORITY/hosts.txt"
fi
[ -f "$AUTHORITY/operator.key" ] || thinwire certs operator operator --dir "$AUTHORITY" >/dev/null
missing=""
for number in $(seq "$CLIENTS"); do
    [ -f "$AUTHORITY/client-$number.key" ] || missing="$missing client-$number"
done
# shellcheck disable=SC2086
[ -z "$missing" ] || thinwire certs client $missing --dir "$AUTHORITY" >/dev/null

cp -p "$AUTHORITY/ca.pem" "$AUTHORITY/revoked.txt" "$AUTHORITY/server.pem" "$AUTHORITY/server.key" "$ROOT/server/"
cp -p "$AUTHORITY/ca.pem" "$AUTHORITY"/client-*.pem "$AUTHORITY"/client-*.key "$ROOT/clients/"
cp -p "$AUTHORITY/ca.pem" "$AUTHORITY/operator.pem" "$AUTHORITY/operator.key" "$ROOT/operator/"
echo "certificates are ready: server for ${HOSTS% }, $CLIENTS clients"
