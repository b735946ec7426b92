# Every role of headway in one image: `docker run IMAGE gateway …`, `docker run IMAGE worker …`.
# `--target relief` adds the demo generator and the Python it needs.

FROM swift:6.3-bookworm AS build
# Debian's versions change with every security update; pinning them would only break the build.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libhiredis-dev libssl-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# The dependencies first: they are fetched again only when these files change.
COPY Package.* ./
RUN swift package resolve
COPY Sources ./Sources
# Not built, but the manifest names their folders.
COPY Tests ./Tests
RUN swift build -c release --static-swift-stdlib --product headway \
    && install -D "$(swift build -c release --show-bin-path)/headway" /out/headway

FROM debian:bookworm-slim AS runtime
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libhiredis0.14 libssl3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/headway --create-home headway
COPY --from=build /out/headway /usr/local/bin/headway
USER 10001
WORKDIR /var/lib/headway
ENV HEADWAY_GATEWAY_DATA=/var/lib/headway/data HEADWAY_WORKER_WORK_DIR=/var/lib/headway/work
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["headway"]
CMD ["--help"]

FROM runtime AS relief
USER 0
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-numpy python3-pil \
    && rm -rf /var/lib/apt/lists/*
COPY examples/relief /usr/share/headway/relief
USER 10001
CMD ["worker", "--queue", "relief", "--pipeline", "relief", "--", "python3", "/usr/share/headway/relief/relief.py"]

# The default of `docker build .`: no Python.
FROM runtime
