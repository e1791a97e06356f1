# kubernetes/dns#561: node-local DNS is down (CrashLoopBackOff), its link-local address and its NOTRACK rules stay: a pod's DNS over TCP is refused by the node itself
from ways import *
L = Lab("p22_nodelocal_dns_tcp").netns("node", "pod")
pod(L, "node", "pod", "10.244.0.5", "10.244.0.1", "veth1")
L.x("node", "sysctl -qw net.ipv4.ip_forward=1; ip link add nodelocaldns type bridge; ip addr add 169.254.20.10/32 dev nodelocaldns; ip link set nodelocaldns up")
ipt(L, "node", """*raw
-A PREROUTING -d 169.254.20.10/32 -p tcp -m tcp --dport 53 -m comment --comment "NodeLocal DNS Cache: skip conntrack" -j NOTRACK
-A OUTPUT -s 169.254.20.10/32 -p tcp -m tcp --sport 53 -m comment --comment "NodeLocal DNS Cache: skip conntrack" -j NOTRACK
COMMIT
*filter
-A INPUT -d 169.254.20.10/32 -p tcp -m tcp --dport 53 -m comment --comment "NodeLocal DNS Cache: allow DNS traffic" -j ACCEPT
COMMIT
""")
L.pyserve("node", "10.244.0.1", 53)   # another resolver of the node, not on the cache's address
L.trace("pod")
print(L.x("pod", "curl -sS -m 3 telnet://169.254.20.10:53", check=False).stderr)
L.stop(); L.show()
judge(L, L.outcomes(port=53), "169.254.20.10 is the node's own (nodelocaldns), another namespace of this machine; nothing listens there on 53 (another resolver listens on 10.244.0.1)", ("nothing_listening", "listening_elsewhere"), ("169.254.20.10",), ("zone", "router"), ("certain",), ("refused",))
