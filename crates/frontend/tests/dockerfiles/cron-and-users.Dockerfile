FROM debian:12
ARG user=backup
ARG uid=2000
ARG group=${user}
RUN groupadd -g ${uid} ${group} && useradd -m -u ${uid} -g ${group} -d /home/${user} ${user}
ENV SCHEDULE="0 3 * * *" \
    TARGET=${TARGET:-/backup} \
    RETRIES=${RETRIES:+3}
COPY --chown=${user}:${group} crontab /etc/cron.d/backup
RUN chmod 0644 /etc/cron.d/backup \
 && crontab -u ${user} /etc/cron.d/backup \
 && touch /var/log/cron.log
HEALTHCHECK --start-period=5s --start-interval=1s CMD ["pgrep", "cron"]
USER ${user}
WORKDIR /home/${user}
CMD cron && tail -f /var/log/cron.log
