# The manager's image: docker build -t sandlane/manager:0.1.0 .
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY src src
# The locked versions are the constraints; what only tests and laptops need is not installed.
RUN python -m venv /opt/sandlane \
 && sed -e 's/ *\\$//' -e '/^ *--hash/d' requirements.lock > constraints.txt \
 && /opt/sandlane/bin/pip install --no-cache-dir --constraint constraints.txt .

FROM python:3.11-slim
COPY --from=build /opt/sandlane /opt/sandlane
ENV PATH=/opt/sandlane/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MALLOC_ARENA_MAX=2
USER 65532:65532
ENTRYPOINT ["sandlane"]
CMD ["manager"]
