# The course in a container: JupyterLab, TensorFlow and the project, run by a user other than root.
# `docker compose up` builds and starts it; docs/docker.md explains the rest.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends bash make tini \
    && rm -rf /var/lib/apt/lists/*

# The user and group number on the host, so that the mounted folders are writable from inside.
# --no-log-init: a large number would make the login records, and so the layer, huge.
ARG USER_ID=1000
ARG GROUP_ID=1000
RUN test "$USER_ID" -gt 0 \
    && groupadd --non-unique --gid "$GROUP_ID" course \
    && useradd --no-log-init --non-unique --uid "$USER_ID" --gid course --create-home \
        --shell /bin/bash course \
    && install --directory --owner course --group course /course /opt/venv
USER course
WORKDIR /course
ENV VENV=/opt/venv \
    PATH=/opt/venv/bin:$PATH \
    SHELL=/bin/bash \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

# The pins come before the project, so that this layer (gigabytes with CUDA) is rebuilt only when
# they change. TENSORFLOW names no version: the pins determine it.
ARG TENSORFLOW=tensorflow[and-cuda]
COPY --chown=course:course requirements-test.txt ./
RUN python3 -m venv "$VENV" \
    && grep -v '^-e ' requirements-test.txt > /tmp/pins.txt \
    && pip install --requirement /tmp/pins.txt "$TENSORFLOW" \
    && rm /tmp/pins.txt

# The two stamps tell make that everything is installed.
COPY --chown=course:course . .
RUN pip install --no-build-isolation --no-deps --editable . \
    && mkdir -p data models \
    && touch "$VENV/.installed" "$VENV/.installed-test"

EXPOSE 8888
# /api returns Jupyter's version without a token.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8888/api', timeout=5)"]
# As process 1, tini passes signals on, so that `docker stop` reaches Python.
ENTRYPOINT ["tini", "--"]
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--port=8888", "--ServerApp.port_retries=0", "--no-browser"]
