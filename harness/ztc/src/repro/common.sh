say() { printf '\n== %s\n' "$*"; }

not_shown() {
  printf '\nNOT SHOWN: %s\n' "$*"
  exit 1
}

not() { ! "$@"; }

# within ATTEMPTS COMMAND...: tries it, a second apart, until it ends well.
within() {
  local attempts=$1 attempt
  shift
  for ((attempt = 1; attempt <= attempts; attempt++)); do
    if "$@"; then return 0; fi
    sleep 1
  done
  return 1
}

# address NAMESPACE POD PATTERN: the first address of a pod that has the pattern in it.
address() {
  kubectl -n "$1" get pod "$2" -o jsonpath='{.status.podIPs[*].ip}' | tr ' ' '\n' | grep -m 1 -e "$3"
}

# The agents of Cilium, one a node.
agents() {
  kubectl -n kube-system get pods -l k8s-app=cilium --field-selector=status.phase=Running -o name
}

in_agent() {
  local agent=$1
  shift
  kubectl -n kube-system exec "$agent" -c cilium-agent -- "$@" 2>/dev/null
}

clean_up() {
  local status=$?
  trap - EXIT
  if [[ -n ${KEEP:-} ]]; then
    exit "$status"
  fi
  say 'clean up'
  kubectl delete -f policies.yaml --ignore-not-found --timeout=120s || true
  kubectl delete -f world.yaml --ignore-not-found --timeout=120s || true
  exit "$status"
}

make_world() {
  local file there
  for file in world.yaml policies.yaml; do
    there=$(kubectl get -f "$file" --ignore-not-found -o name)
    [[ -z $there ]] || not_shown "this exists already, and is neither taken nor deleted: $there"
  done
  trap clean_up EXIT
  # A new namespace has no service account yet.
  within 60 kubectl apply -f world.yaml || not_shown 'the world cannot be made'
}

# Whether an agent has a policy in its repository.
has_policy() { [[ $(in_agent "$1" cilium-dbg policy get) == *"$2"* ]]; }
