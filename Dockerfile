# One image for both roles: docs/containers.md has how to use it, compose.yaml a service for each.
#
#     docker build -t candy .
#
# BASE is a Debian with Python 3.11 or newer; the engine is compiled in a stage of its own, for this machine's kind.
ARG BASE=docker.io/library/python:3.13-slim-bookworm

FROM ${BASE} AS built
RUN command -v gcc || { apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev; }
COPY . /candy
RUN python3 -m venv /opt/candy && /opt/candy/bin/pip install --no-cache-dir "/candy[cluster]"

FROM ${BASE}
# For --masquerade.
RUN command -v nft || { apt-get update && apt-get install -y --no-install-recommends nftables; }
COPY --from=built /opt/candy /opt/candy
ENV PATH=/opt/candy/bin:$PATH CANDY_STATE_DIR=/var/lib/candy
VOLUME /var/lib/candy
EXPOSE 26816/tcp 26816/udp 26817/udp
CMD ["candy-server"]
