# Five times in a row.
passes() {
  local attempt
  for attempt in {1..5}; do
    send || return 1
  done
}

say 'what it is shown on'
kubectl version
kubectl -n kube-system get pods -l k8s-app=cilium -o jsonpath='{.items[*].spec.containers[0].image}{"\n"}'
kubectl get nodes -o wide

say 'the world'
make_world

say 'control: before any policy it has to get through'
within 120 send || not_shown 'it does not get through without a policy'

say 'the policies'
kubectl apply -f policies.yaml
enforced

say 'it still has to get through'
first
if ! within 60 passes; then
  say 'who stopped it, by its own record'
  evidence || true
  not_shown 'it does not get through under the policies'
fi

say 'SHOWN'
