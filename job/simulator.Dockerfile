# A SIORG to try things against, for the kind overlay and the end-to-end suite. Never beside real data.
#
#   docker build -f job/simulator.Dockerfile -t siorg-simulator .
FROM docker.io/library/python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY operator operator
COPY job job
RUN python -m venv --without-pip /opt/siorg \
 && python -m pip --python /opt/siorg/bin/python install --no-cache-dir --only-binary=:all: --no-binary=siorg-sync \
      --disable-pip-version-check --root-user-action=ignore --constraint constraints.txt '.[simulator]'

FROM docker.io/library/python:3.13-slim
LABEL org.opencontainers.image.title="siorg-simulator" \
      org.opencontainers.image.description="Answers as SIORG does, with made-up organizations"
COPY --from=build /opt/siorg /opt/siorg
ENV PATH=/opt/siorg/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["siorg-simulator"]
