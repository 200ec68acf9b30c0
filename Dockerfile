# The BIDS App as an image. docs/how-to/containers.md has the commands that build it, for CPU or
# CUDA, and that run it.

FROM python:3.11-slim-bookworm AS build

# Which build of PyTorch, by the name of its package index: cpu, or one of CUDA such as cu129
# (several GB more; the image then runs with and without an NVIDIA GPU).
ARG TORCH=cpu

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /src
COPY constraints constraints
# pip is the base image's and stays outside. Where pip is set up to offer this very build, it is
# taken from there, else from PyTorch's own index, as in tools/environment.
RUN python -m venv --without-pip /opt/ssl2-bids \
    && sed -n "s/^torch==.*/&+$TORCH/p" constraints/python3.11.txt >torch.txt \
    && { pip --python /opt/ssl2-bids/bin/python install --quiet --no-compile --no-deps \
           --requirement torch.txt 2>/dev/null \
         || pip --python /opt/ssl2-bids/bin/python install --quiet --no-compile --no-deps \
              --index-url "https://download.pytorch.org/whl/$TORCH" --requirement torch.txt; }

# What the package needs, in a layer that a change of its own code leaves as it is.
COPY pyproject.toml README.md LICENSE ./
COPY ssl2_bids/__init__.py ssl2_bids/
RUN pip --python /opt/ssl2-bids/bin/python install --quiet --no-compile \
      --constraint constraints/python3.11.txt .

# strip, for libraries whose wheels carry tables that only a debugger reads.
RUN apt-get update \
    && apt-get install --yes --quiet --no-install-recommends binutils=2.40-* \
    && rm -rf /var/lib/apt/lists/*

# Templates for --output-spaces, res 1 and 2: T1w image and brain mask. Where the builder does not
# reach TemplateFlow's archive, an empty TEMPLATES leaves them out. What the client could download
# is listed there as empty files: they go.
ARG TEMPLATES="MNI152NLin2009cAsym MNI152NLin6Asym"
RUN mkdir /opt/templateflow \
    && for name in $TEMPLATES; do \
         TEMPLATEFLOW_HOME=/opt/templateflow /opt/ssl2-bids/bin/python -c "\
from templateflow.api import get; \
kinds = {'T1w': None, 'mask': 'brain'}.items(); \
[get('$name', resolution=number, suffix=suffix, desc=desc, raise_empty=True) \
 for number in (1, 2) for suffix, desc in kinds]" || exit 1; \
       done \
    && find /opt/templateflow -mindepth 1 -empty -delete \
    && chmod -R a+rX /opt/templateflow

COPY ssl2_bids ssl2_bids
# -I: a PYTHONPATH or home folder of the host must not bring other packages in. What is removed:
# tests, what PyTorch has for building C++ against it, and tables for debuggers. compileall may
# fail: packages carry files in the syntax of later Pythons.
RUN pip --python /opt/ssl2-bids/bin/python install --quiet --no-compile --no-deps \
      --force-reinstall . \
    && sed -i '1s|$| -I|' /opt/ssl2-bids/bin/ssl2-bids /opt/ssl2-bids/bin/ssl2 \
    && find /opt/ssl2-bids/lib -depth -type d -name tests -exec rm -r {} + \
    && find /opt/ssl2-bids/lib -path '*/torch/bin/*' ! -name torch_shm_manager -type f -delete \
    && rm -rf /opt/ssl2-bids/lib/python3.11/site-packages/torch/include \
         /opt/ssl2-bids/lib/python3.11/site-packages/torch/share \
         /opt/ssl2-bids/lib/python3.11/site-packages/torch/test \
    && find /opt/ssl2-bids/lib -type f \( -name 'libtorch_cpu.so' -o -name 'libtorch_python.so' \
         -o -name 'fastcc3d.*.so' -o -name 'fill_voids.*.so' \) -exec strip --strip-unneeded {} + \
    && { python -m compileall -qq --invalidation-mode unchecked-hash /opt/ssl2-bids/lib || true; } \
    && chmod -R a+rX /opt/ssl2-bids


FROM python:3.11-slim-bookworm

# The tag of the image.
ARG VERSION=0.1.0

LABEL org.opencontainers.image.title="ssl2-bids" \
      org.opencontainers.image.description="BIDS App for multiple-sclerosis lesions at 7T and 3T. Research use only." \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.source="https://github.com/ssl2-bids/ssl2-bids"

# One thread in each library: the App gives its own more, by --omp-nthreads. NiPreps recognise
# a container by the variable with the number.
ENV PATH=/opt/ssl2-bids/bin:$PATH \
    OMP_NUM_THREADS=1 \
    MKL_NUM_THREADS=1 \
    TEMPLATEFLOW_HOME=/opt/templateflow \
    IS_DOCKER_8395080871=1 \
    SSL2_BIDS_DOCKER_TAG=$VERSION

# The base image has no bytecode of the standard library, and a read-only one cannot keep it.
RUN python -m compileall -q -x '/(site-packages|tests?)/' \
      "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && echo "$VERSION" >/version
COPY --from=build /opt/ssl2-bids /opt/ssl2-bids
COPY --from=build /opt/templateflow /opt/templateflow

ENTRYPOINT ["/opt/ssl2-bids/bin/ssl2-bids"]
