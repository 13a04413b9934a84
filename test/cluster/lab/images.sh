#!/bin/bash
# images.sh DIR: builds with podman, as root, into DIR/images: the project's image as two releases (cloakroom.tar, tags one and
# two), what stands around it (parts.tar) and pause.tar. On the bases that the Dockerfile names, where they are here or can be
# pulled; otherwise, or with STAND_INS=1, on stand-ins made of Debian's packages and of Node.js as npm has it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../../.." && pwd)
dir=$1
prefix=localhost/cloakroom-cluster
export CONTAINERS_CONF=${CONTAINERS_CONF:-$here/containers.conf}
mkdir -p "$dir/images" "$dir/context"
cd "$dir/context"

# The same input makes the same image.
build() { podman build --quiet --pull=never --network host --format docker --timestamp 0 "$@"; }
has() { podman image exists "$1" || timeout 120 podman pull --quiet "$1" >/dev/null 2>&1; }
# with_libraries ROOT FILE…: each file's shared libraries, at their places below ROOT.
with_libraries() {
  local root=$1 library
  shift
  for library in $(ldd "$@" | grep -oE '/[^ :]+' | sort -u); do
    mkdir -p "$root$(dirname "$library")" && cp -L "$library" "$root$library"
  done
}

stand_ins() {
  local major=$1 arch
  case $(uname -m) in x86_64) arch=x64 ;; aarch64) arch=arm64 ;; *) echo "no Node.js of npm for $(uname -m)" >&2; exit 1 ;; esac
  if [ ! -d debian ]; then
    rm -rf debian.new && debootstrap --variant=minbase --include=redis-server,ca-certificates bookworm debian.new >/dev/null
    mv debian.new debian
  fi
  tar -C debian -c . | podman import --quiet - $prefix/debian >/dev/null
  rm -rf node build-root runtime-root
  mkdir -p node build-root/usr/local/{bin,lib/node_modules} build-root/etc/ssl/certs
  tar -xzf "$(npm pack --silent "node-linux-$arch@$major")" -C node --strip-components=1
  cp node/bin/node build-root/usr/local/bin/
  cp -a "$(npm root -g)/npm" build-root/usr/local/lib/node_modules/
  cp /etc/ssl/certs/ca-certificates.crt build-root/etc/ssl/certs/
  mkdir -p runtime-root/{nodejs/bin,etc/ssl/certs,tmp,home/nonroot}
  cp node/bin/node runtime-root/nodejs/bin/
  with_libraries runtime-root node/bin/node
  cp /etc/ssl/certs/ca-certificates.crt runtime-root/etc/ssl/certs/
  chmod 1777 runtime-root/tmp && chown 65532:65532 runtime-root/home/nonroot
  printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' > runtime-root/etc/passwd
  printf 'root:x:0:\nnonroot:x:65532:\n' > runtime-root/etc/group
  build_base=$prefix/build-stand-in runtime_base=$prefix/runtime-stand-in
  build -f "$here/Dockerfile.build-stand-in" -t $build_base . >/dev/null
  build -f "$here/Dockerfile.runtime-stand-in" -t $runtime_base . >/dev/null
}

build_base=$(sed -n 's/^ARG BUILD_IMAGE=//p' "$project/Dockerfile")
runtime_base=$(sed -n 's/^ARG RUNTIME_IMAGE=//p' "$project/Dockerfile")
if [ "${STAND_INS:-}" ] || ! has "$build_base" || ! has "$runtime_base"; then
  stand_ins "$(sed -n 's/^ARG BUILD_IMAGE=.*node:\([0-9]*\).*/\1/p' "$project/Dockerfile")"
fi

for release in one two; do
  build --build-arg BUILD_IMAGE="$build_base" --build-arg RUNTIME_IMAGE="$runtime_base" --build-arg REVISION=$release \
    -t $prefix/cloakroom:$release "$project" >/dev/null
done
rm -rf parts && mkdir -p parts/node_modules parts/src/demo parts/test/cluster
cp "$project/package.json" parts/
cp -r "$project/src/demo/scripted" parts/src/demo/
cp -r "$project/test/kit" parts/test/
cp "$project/test/cluster/parts.ts" parts/test/cluster/
cp -rL "$project/node_modules/jose" parts/node_modules/
build --build-arg BUILD_IMAGE="$build_base" -f "$here/Dockerfile.parts" -t $prefix/parts . >/dev/null
cp "$(command -v catatonit || echo /usr/libexec/podman/catatonit)" pause
build -f "$here/Dockerfile.pause" -t $prefix/pause . >/dev/null

rm -f "$dir"/images/*.tar
podman save --quiet --multi-image-archive --format docker-archive -o "$dir/images/cloakroom.tar" $prefix/cloakroom:one $prefix/cloakroom:two
podman save --quiet --format docker-archive -o "$dir/images/parts.tar" $prefix/parts:latest
podman save --quiet --format docker-archive -o "$dir/images/pause.tar" $prefix/pause:latest
printf '%s\n%s\n' "$build_base" "$runtime_base" > "$dir/images/bases"
