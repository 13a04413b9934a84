#!/bin/bash
# run.sh DIR CMD…: a Kubernetes of one node, made by build.sh and images.sh in DIR, for as long as CMD runs in it. As root.
# It has namespaces of its own (processes, mounts, network, host name): all that it starts or mounts ends with them, whatever
# happens. Logs, also those of pods that are gone (DIR/run/logs), are in DIR/run until the next time.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$1
run=$dir/run
# The cluster's cgroup: one, or one for each controller where there is no cgroup v2.
cgroups() {
  local procs parent
  for procs in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do
    parent=$(dirname "$procs")
    if [ -w "$procs" ] && [ ! -L "$parent" ]; then echo "$parent/cloakroom-cluster"; fi
  done
}
end() {
  kill -KILL "$pid" 2>/dev/null
  wait "$pid" 2>/dev/null
  for group in $(cgroups); do
    if [ -d "$group" ]; then find "$group" -depth -type d -exec rmdir {} \;; fi
  done
  rm -rf "$run/containerd" "$run/etcd" "$run/kubelet"
}
# Two at a time would take the folder from each other.
exec 9> "$dir/lock"
flock --nonblock 9 || { echo "another run is using $dir" >&2; exit 1; }
rm -rf "$run" && mkdir -p "$run"
for group in $(cgroups); do
  mkdir -p "$group"
  # Version 1: a cpuset without processors takes no process.
  for file in cpuset.cpus cpuset.mems; do
    parent=$(dirname "$group")
    if [ -f "$parent/$file" ]; then cat "$parent/$file" > "$group/$file"; fi
  done
done
unshare --mount --uts --ipc --net --pid --fork --kill-child --mount-proc "$here/up.sh" "$@" <&0 &
pid=$!
trap 'end; exit 130' INT TERM
wait "$pid"
code=$?
end
exit $code
