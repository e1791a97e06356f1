# canonical/lxd#12810, #8716: docker's policy DROP in ip filter FORWARD; LXD's own table accepts, which does not help: every table is asked
from ways import *
L = Lab("p21_lxd_and_docker").netns("host", "c1", "out")
L.link("host", "eth0", "198.51.100.10/24", "out", "eth0", "198.51.100.1/24"); bridge(L, "host", "lxdbr0", "10.140.52.1", c1="10.140.52.7")
L.x("host", "sysctl -qw net.ipv4.ip_forward=1; ip route add default via 198.51.100.1"); L.x("out", "ip addr add 203.0.113.80/32 dev lo")
nft(L, "host", """table inet lxd {
  chain pstrt.lxdbr0 { type nat hook postrouting priority srcnat; policy accept; ip saddr 10.140.52.0/24 ip daddr != 10.140.52.0/24 masquerade; }
  chain fwd.lxdbr0 { type filter hook forward priority filter; policy accept; ip version 4 oifname "lxdbr0" accept; ip version 4 iifname "lxdbr0" accept; }
  chain in.lxdbr0 { type filter hook input priority filter; policy accept; iifname "lxdbr0" tcp dport 53 accept; iifname "lxdbr0" udp dport 67 accept; }
}
""")
ipt(L, "host", """*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
""")
L.pyserve("out", "203.0.113.80", 443)
L.trace("c1")
print(L.x("c1", "curl -sS -m 3 http://203.0.113.80:443/", check=False).stderr)
L.stop(); L.show()
judge(L, L.outcomes(port=443), "the policy of chain FORWARD in table ip filter drops it (docker set it): iptables -I DOCKER-USER -i lxdbr0 -j ACCEPT", ("local_firewall",), ("FORWARD", "policy", ("DOCKER-USER", "docker", "Docker")), ("ISOLATION-STAGE-2",), ("certain",), ("timed_out",))
