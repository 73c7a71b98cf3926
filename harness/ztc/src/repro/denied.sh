# Becomes true, and stays true for ten more attempts.
stopped() {
  local attempt
  within 60 not send || return 1
  for attempt in {1..10}; do
    if send; then
      printf 'it got through at attempt %s of 10 after it had been stopped\n' "$attempt"
      return 1
    fi
    sleep 1
  done
}

say 'what it is shown on'
kubectl version
kubectl -n kube-system get pods -l k8s-app=cilium -o jsonpath='{.items[*].spec.containers[0].image}{"\n"}'
kubectl get nodes -o wide

say 'the world'
make_world

say 'control: before any policy it has to get through'
within 120 send || not_shown 'it does not get through without a policy, so that its denial would say nothing'

say 'the policies'
kubectl apply -f policies.yaml
enforced

say 'it has to be stopped, and to stay so'
first
stopped || not_shown 'it gets through under the policies'

say 'who stopped it, by its own record'
evidence || not_shown 'nobody who should have stopped it has a record of that'

say 'without the policy that denies it has to get through again'
without
within 120 send || not_shown 'it is still stopped, so somebody else denies it as well'

say 'SHOWN'
