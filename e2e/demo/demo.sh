#!/usr/bin/env bash
# What `make demo` shows once the lab is up: each command, then what it prints.
set -euo pipefail
cd "$(dirname "$0")/../.."

show() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@"; }
kubectl() { bin/lab kubectl "$@"; }
title() { printf '\n=== %s\n' "$*"; }

title "the cluster"
show kubectl get nodes -o wide
show kubectl -n portolan get pods -o wide

title "two pods on two nodes"
kubectl delete namespace demo --ignore-not-found >/dev/null
show kubectl apply -f "$PWD/e2e/demo/pods.yaml"
show kubectl -n demo wait --for=condition=Ready pod --all --timeout=60s
show kubectl -n demo get pods -o wide
west=$(kubectl -n demo get pod west -o jsonpath='{.status.podIP}')

title "packets from east to west: through both zones' routers (ttl 62) and a Geneve tunnel"
show kubectl -n demo exec east -- ping -c 3 "$west"
show kubectl -n demo exec east -- curl -sS --max-time 5 "http://$west:8080/hostname"
echo

title "out of the cluster, with the node's address"
show kubectl -n demo exec east -- ping -c 2 172.18.0.100

title "what the API server knows of east: the agent's allocation"
show kubectl -n demo get pod east -o jsonpath='{.metadata.annotations.k8s\.ovn\.org/pod-networks}'
echo

title "what OVN holds on east's node: its switch and routers, and one remote port for each other node"
show bin/lab nbctl --node ovn-worker show

title "what Open vSwitch holds there"
show bin/lab vsctl ovn-worker show

title "the rows that make east's port: every row names the unit that owns it"
show bin/lab nbctl --node ovn-worker --columns=name,addresses,port_security,options,external_ids find Logical_Switch_Port name=demo_east

printf '\nThe cluster stays up: bin/lab --help says what can be asked of it; make down ends it.\n'
