ARG NODE=22
ARG DISTRO=alpine
FROM node:${NODE}-${DISTRO} AS node
FROM node AS pnpm
RUN corepack enable && corepack prepare pnpm@9.15.0 --activate
FROM pnpm AS workspace
WORKDIR /repo
COPY pnpm-lock.yaml pnpm-workspace.yaml package.json ./
RUN pnpm fetch
ADD . .
RUN pnpm install -r --offline
FROM workspace AS api-build
RUN pnpm --filter api build && pnpm --filter api deploy --prod /out/api
FROM workspace AS web-build
ARG PUBLIC_URL=https://example.org
ENV PUBLIC_URL=$PUBLIC_URL
RUN pnpm --filter web build
FROM workspace AS worker-build
RUN pnpm --filter worker build && pnpm --filter worker deploy --prod /out/worker
FROM node AS api
COPY --from=api-build /out/api /app
CMD ["node", "/app/index.js"]
FROM nginx:alpine AS web
COPY --from=web-build /repo/web/dist /usr/share/nginx/html
FROM node AS worker
COPY --from=worker-build /out/worker /app
CMD ["node", "/app/worker.js"]
