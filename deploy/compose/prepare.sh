#!/bin/sh
# Makes what compose.yaml needs and no repository may hold: passwords in .env, certificates in certs, a list of proxies. What is
# there stays.
set -eu
cd "$(dirname "$0")"

if ! [ -e .env ]; then
  (
    umask 077
    # A password begins with a letter: the server takes one that begins with a digit for a number.
    for name in NATS_WORKER_PASSWORD NATS_ADMIN_PASSWORD NATS_PUBLISHER_PASSWORD NATS_READER_PASSWORD GOFER_ADMIN_TOKEN GRAFANA_PASSWORD; do
      echo "$name=p$(openssl rand -hex 24)"
    done >.env
  )
fi

if ! [ -e certs/nats.pem ]; then
  mkdir -p certs
  # Only its owner and the containers, which get single files, see into this folder.
  chmod 700 certs
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=gofer compose" \
    -addext "keyUsage=critical,keyCertSign" -keyout certs/ca-key.pem -out certs/ca.pem
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=nats" -keyout certs/nats-key.pem -out certs/nats.csr
  printf '%s\n' "subjectAltName=DNS:nats-1,DNS:nats-2,DNS:nats-3,DNS:localhost,IP:127.0.0.1" "extendedKeyUsage=serverAuth,clientAuth" >certs/nats.ext
  openssl x509 -req -in certs/nats.csr -CA certs/ca.pem -CAkey certs/ca-key.pem -CAcreateserial -days 825 -extfile certs/nats.ext -out certs/nats.pem
  rm certs/nats.csr certs/nats.ext
  chmod 600 certs/ca-key.pem
  chmod 644 certs/ca.pem certs/nats.pem certs/nats-key.pem
fi

[ -e proxies.txt ] || echo "# A proxy a line: http://user:password@proxy.example.net:3128 tags=residential region=de" >proxies.txt
