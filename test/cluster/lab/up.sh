#!/bin/bash
# up.sh DIR CMD…: starts a Kubernetes of one node and runs CMD in it, with KUBECONFIG set and kubectl on the path.
# To be run as process 1 of namespaces of its own (see run.sh), with which everything ends that is started here.
# No DNS, no kube-proxy, no way out: pods have addresses of 198.18.0.0/24 and reach each other and this namespace.
set -euo pipefail
dir=$1
shift
run=$dir/run
k8s=$dir/bin/k8s
node=198.18.0.1
cd "$run"

# Everything that programs keep in fixed places is this cluster's own.
for place in /run/containerd /run/netns /var/lib/cni /var/lib/kubelet /var/log/containers; do
  mkdir -p $place && mount -t tmpfs tmpfs $place
done
hostname node1
printf '127.0.0.1 localhost\n%s node1\n' $node > hosts && mount --bind hosts /etc/hosts
: > resolv.conf && mount --bind resolv.conf "$(readlink -f /etc/resolv.conf)"
ip link set lo up
ip link add lab0 type bridge && ip addr add $node/24 dev lab0 && ip link set lab0 up
# Programs that look for the machine's address look at the default route.
ip route add default via $node dev lab0

token=$(head -c 24 /dev/urandom | base64 | tr '+/' '-_')
echo "$token,admin,1,system:masters" > tokens.csv
openssl genrsa -out sa.key 2048 2>/dev/null && openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
cat > kubeconfig <<Y
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443", insecure-skip-tls-verify: true}}]
users: [{name: a, user: {token: "$token"}}]
contexts: [{name: x, context: {cluster: c, user: a}}]
current-context: x
Y
mkdir -p pods logs cni && cat > cni/10-lab.conflist <<J
{"cniVersion": "0.3.1", "name": "lab", "plugins": [{"type": "bridge", "bridge": "lab0", "isGateway": true, "ipMasq": false,
  "ipam": {"type": "host-local", "subnet": "198.18.0.0/24", "gateway": "$node"}}]}
J
cat > containerd.toml <<T
version = 2
root = "$run/containerd"
state = "/run/containerd/state"
[grpc]
  address = "/run/containerd/lab.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/cloakroom-cluster/pause:latest"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "${CNI_BIN:-/usr/lib/cni}"
    conf_dir = "$run/cni"
T
cat > kubelet.yaml <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $node
readOnlyPort: 0
containerRuntimeEndpoint: unix:///run/containerd/lab.sock
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
failSwapOn: false
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /cloakroom-cluster
enforceNodeAllocatable: []
makeIPTablesUtilChains: false
localStorageCapacityIsolation: false
podLogsDir: $run/pods
# How soon a changed Secret or ConfigMap is in a pod: at most this, where clusters have a minute.
syncFrequency: 10s
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
Y

start() { local name=$1; shift; "$@" > "$name.log" 2>&1 & }
etcd=http://127.0.0.1:2379
start etcd "$dir/bin/etcd" --data-dir "$run/etcd" --listen-client-urls $etcd --advertise-client-urls $etcd \
  --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
  --initial-cluster default=http://127.0.0.1:2380 --unsafe-no-fsync
start containerd containerd --config containerd.toml
start apiserver "$k8s" apiserver --etcd-servers=$etcd --bind-address=127.0.0.1 --advertise-address=127.0.0.1 --secure-port=6443 \
  --cert-dir="$run/certs" --token-auth-file=tokens.csv --authorization-mode=Node,RBAC \
  --service-account-issuer=https://kubernetes.default.svc --service-account-key-file=sa.pub \
  --service-account-signing-key-file=sa.key --service-cluster-ip-range=10.96.0.0/24 --endpoint-reconciler-type=none \
  --enable-admission-plugins=PodSecurity

# within SECONDS WHAT CMD…: waits until CMD succeeds.
within() {
  local seconds=$1 what=$2
  shift 2
  for _ in $(seq $((seconds * 5))); do "$@" >/dev/null 2>&1 && return; sleep .2; done
  echo "$what is not there after $seconds s; see $run/*.log" >&2
  exit 1
}
export KUBECONFIG=$run/kubeconfig PATH=$dir/bin:$PATH CONTAINERD_ADDRESS=/run/containerd/lab.sock CONTAINERD_NAMESPACE=k8s.io
within 60 'the API server' kubectl get --raw /readyz
start controller-manager "$k8s" controller-manager --kubeconfig=kubeconfig --bind-address=127.0.0.1 --leader-elect=false \
  --service-account-private-key-file=sa.key --use-service-account-credentials=true --cert-dir="$run/certs"
start scheduler "$k8s" scheduler --kubeconfig=kubeconfig --bind-address=127.0.0.1 --leader-elect=false --cert-dir="$run/certs"
within 20 containerd ctr version
for image in "$dir"/images/*.tar; do ctr images import "$image" > /dev/null; done
start kubelet "$k8s" kubelet --kubeconfig=kubeconfig --config=kubelet.yaml --root-dir="$run/kubelet" --cert-dir="$run/certs" \
  --hostname-override=node1 --node-ip=$node
# The kubelet deletes a pod's log with the pod; these links stay.
while sleep 2; do cp --recursive --link --update pods/. logs/ 2>/dev/null; done &
within 60 'the node' sh -c 'kubectl get nodes | grep -q " Ready"'
"$@"
