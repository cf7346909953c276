FROM node:22-bookworm-slim AS deps
WORKDIR /app
ENV NODE_ENV=production
COPY package.json package-lock.json ./
RUN npm ci --omit=dev && npm cache clean --force

FROM node:22-bookworm-slim AS build
WORKDIR /app
COPY package*.json ./
RUN npm ci
COPY . .
RUN npm run lint && \
    npm run build

FROM nginx:1.27-alpine
LABEL org.opencontainers.image.title="web" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.description="A \"small\" web page"
COPY --from=build /app/dist /usr/share/nginx/html
COPY --from=deps /app/node_modules /srv/node_modules
COPY docker/nginx.conf /etc/nginx/conf.d/default.conf
HEALTHCHECK --interval=30s --timeout=3s --retries=3 CMD wget -qO- http://localhost/ || exit 1
STOPSIGNAL SIGQUIT
EXPOSE 80
CMD ["nginx", "-g", "daemon off;"]
