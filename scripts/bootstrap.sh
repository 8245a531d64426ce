#!/bin/sh
# What candy needs from the system, and nothing of what pip installs: looks, and installs what is missing with apt when
# it may (root, on a Debian-like system); else says in one line what is missing and how to get it, and ends with 1.
#
#   bootstrap.sh python    Python >= 3.11 with headers and venv, and a C compiler   (PYTHON chooses the interpreter)
#   bootstrap.sh tools     the programs that tests and demo run: in network namespaces, and git for an older candy
#   bootstrap.sh tls       other implementations of TLS, as far as the system has them; none is a reason to fail
#   bootstrap.sh browser   Chromium, in which the tests look at the relay's page
#   bootstrap.sh fuzzer    clang with libFuzzer
#   bootstrap.sh containers    what builds and runs images
#   bootstrap.sh machines  what makes and boots a Debian
set -eu

python=${PYTHON:-python3}

die() {
    echo "candy: $*" >&2
    exit 1
}

may_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null
}

# install WHAT PACKAGE...   WHAT is how a person calls it
install() {
    what=$1
    shift
    may_install || die "$what is missing: apt install $*"
    echo "install $*"
    export DEBIAN_FRONTEND=noninteractive
    # A fresh image has no package lists, and old lists name packages that are gone.
    if ! ls /var/lib/apt/lists/*Packages* >/dev/null 2>&1; then
        apt-get update -qq >/dev/null || die "$what is missing, and apt-get update failed"
    fi
    apt_install "$@" 2>/dev/null || { apt-get update -qq >/dev/null && apt_install "$@"; } ||
        die "$what is missing, and apt could not install it: apt install $*"
}

apt_install() {
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# The package that completes this interpreter, or an error when the system did not install it: apt has nothing for it.
install_for_python() {
    what=$1
    suffix=$2
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    case $("$python" -c 'import sys; print(sys.base_prefix)') in
    /usr) install "$what" "python$version-$suffix" ;;
    *) die "$what of $(command -v "$python") is missing: install it, or choose another Python with make PYTHON=..." ;;
    esac
}

need_python() {
    [ "$(uname -s)" = Linux ] || die "needs Linux, and this is $(uname -s)"
    command -v "$python" >/dev/null || die "$python is missing: apt install python3, or make PYTHON=..."
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$("$python" -V) is too old: 3.11 or newer is needed, choose it with make PYTHON=python3.11"
    command -v cc >/dev/null || command -v gcc >/dev/null || install "a C compiler" gcc libc6-dev
    "$python" -c 'import ensurepip, venv' 2>/dev/null || install_for_python "python3-venv" venv
    "$python" -c '
import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
        install_for_python "Python.h (python3-dev)" dev
}

# need PROGRAM:PACKAGE...
need() {
    missing=
    for pair; do
        # Debian keeps ip, nft, tcpdump, nginx and haproxy where only root's PATH looks.
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
    done
    # shellcheck disable=SC2086  # a list of package names
    [ -z "$missing" ] || install "${missing# }" $missing
}

need_tools() {
    need ip:iproute2 ping:iputils-ping iperf3:iperf3 curl:curl tcpdump:tcpdump nft:nftables git:git \
        nginx:nginx-light haproxy:haproxy caddy:caddy prometheus:prometheus
}

need_tls() {
    for pair in openssl:openssl gnutls-cli:gnutls-bin botan:botan hey:hey node:nodejs \
        libcurl-nss.so.4:libcurl3-nss libcurl-gnutls.so.4:libcurl3-gnutls; do
        command -v "${pair%%:*}" >/dev/null || ldconfig -p | grep -qF "${pair%%:*}" ||
            (install "${pair%%:*}" "${pair#*:}") || :
    done
}

need_browser() {
    command -v chromium >/dev/null || install chromium chromium
}

need_fuzzer() {
    command -v clang >/dev/null || install clang clang
    # Debian has libFuzzer in a package of its own, which bears the compiler's version.
    if ! links_fuzzer; then
        version=$(clang -dumpversion)
        install libFuzzer "libclang-rt-${version%%.*}-dev"
    fi
}

need_containers() {
    need debootstrap:debootstrap podman:podman runc:runc ip:iproute2 ping:iputils-ping
}

need_machines() {
    need debootstrap:debootstrap systemd-nspawn:systemd-container
}

links_fuzzer() {
    echo 'int LLVMFuzzerTestOneInput(const char *data, unsigned long n) { return data && n; }' |
        clang -fsanitize=fuzzer,address -x c - -o /dev/null 2>/dev/null
}

case ${1-} in
python) need_python ;;
tools) need_tools ;;
tls) need_tls ;;
browser) need_browser ;;
fuzzer) need_fuzzer ;;
containers) need_containers ;;
machines) need_machines ;;
*) die "usage: bootstrap.sh python|tools|tls|browser|fuzzer|containers|machines" ;;
esac
