# ggrank serve with its two bundled models, for any x86-64-v3 (AVX2) or arm64 machine: docs/container.md
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
# Versions come from the base image's release; the compiler stays in this stage.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends build-essential \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build

# The library must run on other machines than the one that builds it: nothing that only some have. What
# x86-64-v3 has is named, because llama.cpp turns it off where SOURCE_DATE_EPOCH is set or the build is a cross
# build. On arm64 these names mean nothing, and the compiler's baseline (armv8-a) holds.
ARG CMAKE_ARGS="-DGGML_NATIVE=OFF \
-DGGML_SSE42=ON -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON \
-DGGML_AVX_VNNI=OFF -DGGML_AVX512=OFF -DGGML_AVX512_VBMI=OFF -DGGML_AVX512_VNNI=OFF -DGGML_AVX512_BF16=OFF \
-DGGML_AMX_TILE=OFF -DGGML_AMX_INT8=OFF -DGGML_AMX_BF16=OFF \
-DLLAVA_BUILD=OFF"
COPY requirements/llama-cpp-python.lock requirements/
RUN pip wheel --no-cache-dir --no-deps --no-binary llama-cpp-python --require-hashes \
    --wheel-dir wheels --requirement requirements/llama-cpp-python.lock

ENV PATH=/opt/ggrank/bin:$PATH
COPY requirements/server.lock requirements/
RUN python -m venv /opt/ggrank \
 && pip install --no-cache-dir --no-deps --require-hashes --requirement requirements/server.lock \
 && pip install --no-cache-dir --no-deps --no-index wheels/*.whl
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --no-deps . \
 && pip check

FROM ${BASE}
LABEL org.opencontainers.image.title="ggrank" \
      org.opencontainers.image.description="Reranking and embeddings from GGUF models, in every rerank dialect." \
      org.opencontainers.image.licenses="Apache-2.0"
# What llama.cpp is linked with, and a folder for what is worth keeping between two containers.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgomp1 libstdc++6 \
 && rm -rf /var/lib/apt/lists/* \
 && mkdir /cache \
 && chown 10001:10001 /cache
COPY --from=build /opt/ggrank /opt/ggrank
ENV PATH=/opt/ggrank/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GGRANK_CACHE_DIR=/cache/ggrank \
    HF_HOME=/cache/huggingface
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
WORKDIR /cache
EXPOSE 8080
# No proxy: http_proxy is for other machines than this one.
HEALTHCHECK --interval=30s --timeout=40s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:8080/health', timeout=35)"]
ENTRYPOINT ["ggrank", "serve", "--host", "0.0.0.0", "--port", "8080"]
