//! The policies that tests apply.

/// Only the web may talk to the ledger, on its port named `http`.
pub(super) const LEDGER_FROM_WEB: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: ledger-from-web, namespace: zt-pay }
spec:
  endpointSelector: { matchLabels: { app: ledger } }
  ingress:
    - fromEndpoints: [{ matchLabels: { app: web, k8s:io.kubernetes.pod.namespace: zt-shop } }]
      toPorts: [{ ports: [{ port: http, protocol: TCP }] }]
";

/// Nothing comes in or out in the namespace of the web.
pub(super) const SHOP_DEFAULT_DENY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: default-deny, namespace: zt-shop }
spec: { podSelector: {}, policyTypes: [Ingress, Egress] }
";

/// Nothing reaches the metadata service.
pub(super) const BLOCK_METADATA: &str = "
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: { name: block-metadata }
spec:
  endpointSelector: {}
  enableDefaultDeny: { ingress: false, egress: false }
  egressDeny: [{ toCIDR: [169.254.169.254/32] }]
";

/// The web may ask cluster DNS for names under `zt.test`.
pub(super) const WEB_DNS: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: web-dns, namespace: zt-shop }
spec:
  endpointSelector: { matchLabels: { app: web } }
  egress:
    - toEndpoints:
        - matchLabels: { k8s:io.kubernetes.pod.namespace: kube-system, k8s-app: kube-dns }
      toPorts:
        - ports: [{ port: '53', protocol: UDP }, { port: '53', protocol: TCP }]
          rules: { dns: [{ matchPattern: '*.zt.test' }] }
";

/// Nothing comes in at cluster DNS.
pub(super) const DNS_DEFAULT_DENY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: closed, namespace: kube-system }
spec: { podSelector: {}, policyTypes: [Ingress] }
";

/// The web may open connections to the hosts of one name and of a pattern, on port 443.
pub(super) const WEB_FQDNS: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: web-fqdns, namespace: zt-shop }
spec:
  endpointSelector: { matchLabels: { app: web } }
  egress:
    - toFQDNs: [{ matchName: api.zt.test }, { matchPattern: '*.vendor.test' }]
      toPorts: [{ ports: [{ port: '443', protocol: TCP }] }]
";
