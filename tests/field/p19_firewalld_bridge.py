# moby/libnetwork#2647, docker/for-linux#1353, firewalld/firewalld#887: containers of one internal network: the bridge hands the frame to inet firewalld, whose filter_FORWARD rejects: Host is unreachable
from ways import *
L = Lab("p19_firewalld_bridge").netns("host", "app", "web")
bridge(L, "host", "br-77aa77aa77aa", "172.16.240.1", app="172.16.240.3", web="172.16.240.2")
L.x("host", "sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1")
nft(L, "host", """table inet firewalld {
  chain filter_FORWARD {
    type filter hook forward priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    jump filter_FORWARD_POLICIES_pre
    jump filter_FORWARD_ZONES
    jump filter_FORWARD_POLICIES_post
    reject with icmpx admin-prohibited
  }
  chain filter_FORWARD_POLICIES_pre { }
  chain filter_FORWARD_POLICIES_post { }
  chain filter_FORWARD_ZONES { iifname "docker0" goto filter_FWD_docker; goto filter_FWD_public; }
  chain filter_FWD_docker { accept; }
  chain filter_FWD_public { jump filter_FWD_public_deny; }
  chain filter_FWD_public_deny { }
}
""")
L.pyserve("web", "0.0.0.0", 80)
L.trace("app")
print(L.x("app", "curl -sS -m 4 http://172.16.240.2/", check=False).stderr, L.x("app", "ping -c 1 -W 1 172.16.240.2", check=False).stdout)
L.stop(); L.show()
judge(L, L.outcomes(port=80), "firewalld on the host rejects what the bridge forwards: filter_FORWARD; put the bridge into the docker zone", ("admin_prohibited", "rejected_by_firewall"), ("firewalld", "filter_FORWARD"), ("start the host",), ("certain",), ("unreachable",))
