# Build:  docker build -t cloakroom .
# Run:    docker run --rm --read-only --cap-drop ALL -p 8080:8080 \
#           -v "$PWD/config:/etc/cloakroom:ro" -v "$PWD/secrets:/run/secrets:ro" cloakroom
# Other commands follow the image's name: docker run --rm cloakroom keygen
#
# Both bases are arguments so that a release can pin them by digest or take them from a mirror.
ARG BUILD_IMAGE=docker.io/library/node:24-bookworm-slim
ARG RUNTIME_IMAGE=gcr.io/distroless/nodejs24-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /app
COPY package.json package-lock.json ./
# No install scripts: the only one among the dependencies fetches a second Node.js for checkouts.
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY tsconfig.json tsconfig.build.json tsconfig.client.json ./
COPY src ./src
COPY test/image/bundle.ts test/image/prune.ts test/image/notices.ts ./test/image/
# Of the peer dependencies only connect-redis's `redis` goes: Redis is reached with ioredis.
RUN npm run build && npm prune --omit=dev --omit=peer --ignore-scripts --no-audit --no-fund && mkdir /compile-cache
# Four fifths of node_modules are loaded by no command. Licence texts go into THIRD-PARTY-NOTICES. Source maps go too: Node.js
# would read every one at each start.
RUN node --experimental-import-meta-resolve test/image/prune.ts /app

# Compiled here once, in place of at each start. Node.js finds the cache by its own version and the user, so that the runtime
# itself makes it, as the user that it runs as; another runtime compiles as ever.
FROM ${RUNTIME_IMAGE} AS compiled
COPY --from=build /app/package.json /app/package.json
COPY --from=build /app/node_modules /app/node_modules
COPY --from=build /app/dist /app/dist
COPY --from=build --chown=65532:65532 /compile-cache /app/compile-cache
COPY test/image/warm.ts /build/warm.ts
USER 65532:65532
ENV NODE_ENV=production
RUN ["/nodejs/bin/node", "/build/warm.ts", "/app/dist/main.js", "/app/compile-cache"]

FROM ${RUNTIME_IMAGE} AS runtime
ARG RUNTIME_IMAGE
ENV NODE_ENV=production \
    NODE_COMPILE_CACHE=/app/compile-cache \
    CLOAKROOM_CONFIG=/etc/cloakroom/cloakroom.yaml
WORKDIR /app
# What changes least comes first. Owned by root, run by another user: the process cannot change its own code.
COPY --from=build --chown=0:0 /app/THIRD-PARTY-NOTICES ./
COPY --from=build --chown=0:0 /app/node_modules ./node_modules
COPY --from=build --chown=0:0 /app/package.json ./
COPY --from=build --chown=0:0 /app/dist ./dist
COPY --from=compiled --chown=0:0 /app/compile-cache ./compile-cache
# A number, because Kubernetes' runAsNonRoot cannot judge a name.
USER 65532:65532
EXPOSE 8080 9090
# For Compose; Kubernetes has its own probes. HEALTHCHECK_URL where admin.listen is another.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s CMD ["/nodejs/bin/node", "--eval", "fetch(process.env.HEALTHCHECK_URL ?? 'http://127.0.0.1:9090/readyz').then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]
# Exec form: Node.js is process 1 and gets SIGTERM itself. Without a command, main.js serves.
ENTRYPOINT ["/nodejs/bin/node", "/app/dist/main.js"]
# Last, because they change with every revision. `npm run image` fills them in.
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=unknown
ARG BASE_DIGEST=unknown
LABEL org.opencontainers.image.title="cloakroom" \
      org.opencontainers.image.description="Backend-for-Frontend auth proxy: the browser holds one cookie, the cloakroom holds the tokens" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${RUNTIME_IMAGE}" \
      org.opencontainers.image.base.digest="${BASE_DIGEST}"
