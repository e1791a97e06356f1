# containers/netavark#709: podman networks with isolation: a container asks the host's published port; DNAT leads to the other bridge, NETAVARK-ISOLATION-3 drops
from ways import *
L = Lab("p20_netavark_isolation").netns("host", "code", "cloud")
bridge(L, "host", "podman1", "10.89.0.1", code="10.89.0.2"); bridge(L, "host", "podman2", "10.89.1.1", cloud="10.89.1.2")
L.x("host", "sysctl -qw net.ipv4.ip_forward=1; ip addr add 192.0.2.44/32 dev lo")
nft(L, "host", """table inet netavark {
  chain INPUT { type filter hook input priority filter; policy accept; ip saddr 10.89.0.0/24 meta l4proto { tcp, udp } th dport 53 accept; }
  chain FORWARD {
    type filter hook forward priority filter; policy accept;
    ct state invalid drop
    jump NETAVARK-ISOLATION-1
    ip daddr 10.89.0.0/24 ct state established,related accept
    ip saddr 10.89.0.0/24 accept
    ip daddr 10.89.1.0/24 ct state established,related accept
    ip saddr 10.89.1.0/24 accept
  }
  chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept; meta mark & 0x00002000 == 0x00002000 masquerade; }
  chain PREROUTING { type nat hook prerouting priority dstnat; policy accept; fib daddr type local jump NETAVARK-HOSTPORT-DNAT; }
  chain OUTPUT { type nat hook output priority -100; policy accept; fib daddr type local jump NETAVARK-HOSTPORT-DNAT; }
  chain NETAVARK-HOSTPORT-DNAT { tcp dport 8443 jump nv_2f259bab_10_89_1_0_nm24_dnat; }
  chain nv_2f259bab_10_89_1_0_nm24_dnat {
    ip saddr 10.89.1.0/24 tcp dport 8443 jump NETAVARK-HOSTPORT-SETMARK
    ip saddr 127.0.0.1 tcp dport 8443 jump NETAVARK-HOSTPORT-SETMARK
    tcp dport 8443 dnat ip to 10.89.1.2:443
  }
  chain NETAVARK-HOSTPORT-SETMARK { meta mark set meta mark | 0x00002000; }
  chain NETAVARK-ISOLATION-1 { iifname "podman1" oifname != "podman1" jump NETAVARK-ISOLATION-2; iifname "podman2" oifname != "podman2" jump NETAVARK-ISOLATION-2; }
  chain NETAVARK-ISOLATION-2 { oifname "podman1" drop; oifname "podman2" drop; jump NETAVARK-ISOLATION-3; }
  chain NETAVARK-ISOLATION-3 { }
}
""")
L.pyserve("cloud", "0.0.0.0", 443)
L.trace("code")
print(L.x("code", "curl -sS -m 3 http://192.0.2.44:8443/", check=False).stderr)
L.stop(); L.show()
judge(L, L.outcomes(port=8443), "translated to 10.89.1.2:443, then dropped by netavark's isolation on this host", ("local_firewall",), ("NETAVARK-ISOLATION-2", "netavark", "10.89.1.2"), (), ("certain", "likely"), ("timed_out",))
