"""What the scenes of containers and NAT share: pods on veths, containers on bridges, kube-proxy's nft rules, and the judge."""
from lab import *; from j import *

def pod(L, node, name, addr, gw, dev):
    """A pod on a veth of its own, routed as calico, kindnet and ptp do it."""
    L.link(node, dev, f"{gw}/32", name, "eth0", f"{addr}/32")
    L.x(node, f"ip route add {addr} dev {dev}"); L.x(name, f"ip route add {gw} dev eth0; ip route add default via {gw}")

def bridge(L, host, br, gw, **members):
    """A bridge of the host with its containers: docker0, cni0, podman0, lxdbr0. A member is name=address."""
    L.x(host, f"ip link add {br} type bridge; ip addr add {gw}/24 dev {br}; ip link set {br} up")
    for name, addr in members.items():
        sh(f"ip -n {L.ns[host]} link add v{br[:6]}{name[:6]} type veth peer name eth0 netns {L.ns[name]}")
        L.x(host, f"ip link set v{br[:6]}{name[:6]} master {br} up"); L.x(name, f"ip addr add {addr}/24 dev eth0; ip link set eth0 up; ip route add default via {gw}")

def nft(L, n, rules):
    p = L.dir + f"/{n}.nft"; open(p, "w").write(rules); L.x(n, f"nft -f {p}")

def ipt(L, n, lines, program="iptables"):
    """Rules in iptables-save's own words, loaded as the tools do it."""
    p = L.dir + f"/{n}-{program}.rules"; open(p, "w").write(lines); L.x(n, f"{program}-restore --noflush < {p}")

KUBE_PROXY = """
table ip kube-proxy {
  comment "rules for kube-proxy"
  set cluster-ips { type ipv4_addr; comment "Active ClusterIPs"; elements = { %(cluster_ips)s } }
  set nodeport-ips { type ipv4_addr; comment "IPs that accept NodePort traffic"; elements = { 192.0.2.10 } }
  map no-endpoint-nodeports { type inet_proto . inet_service : verdict; comment "vmap to drop or reject packets to service nodeports with no endpoints"; }
  map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; comment "vmap to drop or reject packets to services with no endpoints"; }
  map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; comment "destinations that are subject to LoadBalancerSourceRanges"; }
  map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; comment "ClusterIP, ExternalIP and LoadBalancer IP traffic"; }
  map service-nodeports { type inet_proto . inet_service : verdict; comment "NodePort traffic"; }
  chain cluster-ips-check {
    ip daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"
    ip daddr { 10.96.0.0/16 } drop comment "Drop traffic to unallocated ClusterIPs"
  }
  chain filter-prerouting-pre-dnat { type filter hook prerouting priority -110; ct state new jump firewall-check; }
  chain filter-output-pre-dnat { type filter hook output priority -110; ct state new jump firewall-check; }
  chain filter-forward { type filter hook forward priority 0; ct state new jump service-endpoints-check; ct state new jump cluster-ips-check; }
  chain filter-input { type filter hook input priority 0; ct state new jump nodeport-endpoints-check; ct state new jump service-endpoints-check; }
  chain filter-output { type filter hook output priority 0; ct state new jump service-endpoints-check; ct state new jump cluster-ips-check; }
  chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
  chain mark-for-masquerade { meta mark set mark or 0x4000; }
  chain masquerading { meta mark & 0x4000 == 0 return; meta mark set meta mark xor 0x4000; masquerade fully-random; }
  chain nat-output { type nat hook output priority -100; jump services; }
  chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }
  chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
  chain nodeport-endpoints-check { ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }
  chain reject-chain { comment "helper for @no-endpoint-services / @no-endpoint-nodeports"; reject; }
  chain services { ip daddr . meta l4proto . th dport vmap @service-ips; ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports; }
  chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
  %(chains)s
}
%(elements)s
"""
def kube_proxy(L, n, cluster_ips, chains="", elements=""):
    nft(L, n, KUBE_PROXY % {"cluster_ips": cluster_ips, "chains": chains, "elements": elements})

def service(name, clusterip, port, endpoint, hashes=("ULMVA6XW", "5OJB2KTY")):
    """One service with one endpoint, in kube-proxy's own chains: (chains, elements)."""
    s = f"service-{hashes[0]}-{name}/tcp/http"; e = f"endpoint-{hashes[1]}-{name}/tcp/http__{endpoint.replace(':', '/')}"; ip = endpoint.split(":")[0]
    chains = f'''
  chain {e} {{ ip saddr {ip} jump mark-for-masquerade; meta l4proto tcp dnat to {endpoint}; }}
  chain {s} {{ ip daddr {clusterip} tcp dport {port} ip saddr != 10.244.0.0/16 jump mark-for-masquerade; numgen random mod 1 vmap {{ 0 : goto {e} }}; }}'''
    return chains, f"add element ip kube-proxy service-ips {{ {clusterip} . tcp . {port} : goto {s} }}\n"

def judge(L, lines, truth, codes, words=(), never=(), sure=("certain", "likely"), labels=None, count=1):
    """Right only if there are `count` lines, each with a cause of `codes`, a certainty of `sure`, all `words` (a tuple: any of it), none of `never`."""
    if len(lines) != count: L.verdict(False, f"{len(lines)} lines instead of {count}. {truth}")
    for x in lines:
        t = text(x); bad = []
        if labels and x["label"] not in labels: bad.append(f"label {x['label']}")
        if code(x) not in codes: bad.append(f"cause {code(x)} ({cert(x)})")
        elif cert(x) not in sure: bad.append(f"certainty {cert(x)}")
        bad += [f"not said: {w}" for w in words if not any(o in t for o in (w if isinstance(w, tuple) else (w,)))]
        bad += [f"said: {w}" for w in never if w in t]
        if bad: L.verdict(False, f"{'; '.join(bad)}. {truth}")
    L.verdict(True, truth)
