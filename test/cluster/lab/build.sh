#!/bin/bash
# build.sh DIR: builds Kubernetes (one program, see kubernetes/main.go) and etcd from the Go modules of their releases into
# DIR/bin, and puts the CustomResourceDefinitions of what the chart has objects for into DIR/crds. What is there stays.
# 5 to 25 minutes on two cores the first time.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$1
kubernetes=v1.35.4
etcd=v3.6.6
crds='
sigs.k8s.io/gateway-api@v1.4.0 config/crd/standard gateway.networking.k8s.io_httproutes
github.com/prometheus-operator/prometheus-operator@v0.85.0 example/prometheus-operator-crd monitoring.coreos.com_(servicemonitors|podmonitors|prometheusrules)
github.com/kedacore/keda/v2@v2.21.0 config/crd/bases keda.sh_scaledobjects
github.com/grafana/grafana-operator/v5@v5.18.0 config/crd/bases grafana.integreatly.org_grafanadashboards
github.com/external-secrets/external-secrets@v1.3.2 config/crds/bases external-secrets.io_externalsecrets
'
export GOFLAGS="-buildvcs=false -mod=mod" CGO_ENABLED=0 GOWORK=off
mkdir -p "$dir/bin" "$dir/crds" "$dir/src"
finish() { [ -f "$1" ] && [ "$(cat "$1.version" 2>/dev/null)" = "$2" ]; }

if ! finish "$dir/bin/k8s" $kubernetes; then
  rm -rf "$dir/src/k8s" && mkdir "$dir/src/k8s" && cp "$here/kubernetes/main.go" "$dir/src/k8s/" && cd "$dir/src/k8s"
  # k8s.io/kubernetes requires its sibling modules as v0.0.0: each is pinned to the release.
  sibling=v0.${kubernetes#v1.}
  mod=$(go mod download -json "k8s.io/kubernetes@$kubernetes" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
  {
    echo "module cloakroom.test/k8s"
    grep -m1 '^go ' "$mod"
    echo "require k8s.io/kubernetes $kubernetes"
    sed -n 's#^[[:space:]]*\(k8s.io/[a-z-]*\) v0\.0\.0\( //.*\)\{0,1\}$#replace \1 => \1 '"$sibling"'#p' "$mod"
  } > go.mod
  # What the API server says its version is, which helm and the chart look at.
  flags="-s -w"
  for package in k8s.io/client-go/pkg/version k8s.io/component-base/version; do
    flags="$flags -X $package.gitVersion=$kubernetes -X $package.gitMajor=1 -X $package.gitMinor=$(echo $kubernetes | cut -d. -f2)"
  done
  nice go build -p 2 -ldflags "$flags" -o "$dir/bin/k8s" .
  echo $kubernetes > "$dir/bin/k8s.version"
fi

if ! finish "$dir/bin/etcd" $etcd; then
  rm -rf "$dir/src/etcd" && mkdir "$dir/src/etcd" && cp "$here/etcd/main.go" "$dir/src/etcd/" && cd "$dir/src/etcd"
  go mod init cloakroom.test/etcd
  go get "go.etcd.io/etcd/server/v3@$etcd"
  nice go build -p 2 -ldflags "-s -w" -o "$dir/bin/etcd" .
  echo $etcd > "$dir/bin/etcd.version"
fi

printf '#!/bin/sh\nexec %s/k8s kubectl "$@"\n' "$dir/bin" > "$dir/bin/kubectl"
chmod +x "$dir/bin/kubectl"

if ! finish "$dir/crds/all" "$(echo "$crds" | sha256sum)"; then
  rm -f "$dir"/crds/*
  echo "$crds" | while read -r module folder names; do
    [ -n "$module" ] || continue
    source=$(cd "$dir/src" && go mod download -json "$module" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
    # Some names end in -crd.yaml, others in .yaml.
    find "$source/$folder" -name '*.yaml' | grep -E "/($names)(-crd)?\.yaml$" | xargs -I{} cp {} "$dir/crds/"
  done
  chmod u+w "$dir"/crds/*
  touch "$dir/crds/all"
  echo "$crds" | sha256sum > "$dir/crds/all.version"
fi
