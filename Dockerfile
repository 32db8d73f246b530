# syntax=docker/dockerfile:1
# docker build --target cpu --tag oneword .
# docker run --rm --user "$(id -u)" --volume "$PWD:/work" oneword demo
FROM python:3.11-slim-bookworm AS cpu
WORKDIR /opt/oneword
COPY constraints.txt ./
RUN pip install --no-cache-dir torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src ./src
RUN pip install --no-cache-dir --constraint constraints.txt '.[microworld,track,web]' \
    && useradd --create-home --uid 1000 oneword
USER 1000
WORKDIR /work
ENTRYPOINT ["oneword"]
CMD ["--help"]
