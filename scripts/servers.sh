#!/usr/bin/env bash
# See to it that redis-server and rabbitmq-server are installed, for the tests to start privately, openssl, for their
# certificates, Chromium with its driver, for the tests of the web page, and Prometheus, whose tool checks the alerts.
# As root on Debian they are installed (and not started); else one line says what is skipped.
# With CI=true nothing may be skipped: what cannot be had is an error.
set -euo pipefail
PATH="$PATH:/usr/sbin:/usr/local/sbin"

declare -A program=([chromium-driver]=chromedriver [prometheus]=promtool)
missing=()
for package in redis-server rabbitmq-server openssl chromium-driver prometheus; do
  command -v "${program[$package]:-$package}" >/dev/null || missing+=("$package")
done
[ ${#missing[@]} = 0 ] && exit 0

install() {
  # Installing must not start services on somebody's machine.
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  echo "servers: installing ${missing[*]}" >&2
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && install; then
  exit 0
fi
if [ "${CI:-}" = true ]; then
  echo "servers: ${missing[*]} is not installed and could not be, and CI=true skips nothing" >&2
  exit 1
fi
echo "servers: ${missing[*]} not found: its tests are skipped (Debian: apt install ${missing[*]})" >&2
