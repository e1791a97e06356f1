# containernetworking/plugins#68, hashicorp/nomad#13352: a container asks for its own published port; DNAT brings its SYN back to it with its own address as source: the kernel drops the martian
from ways import *
L = Lab("p09_portmap_hairpin").netns("node", "pod", "out")
L.link("node", "eth0", "192.0.2.10/24", "out", "eth0", "192.0.2.1/24"); pod(L, "node", "pod", "172.26.64.5", "172.26.64.1", "veth1")
L.x("node", "sysctl -qw net.ipv4.ip_forward=1; ip route add default via 192.0.2.1")
ipt(L, "node", """*nat
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-DN-1f2e3d4c5b6a798081726 - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \\"nomad\\" id: \\"7fa4\\"" -m multiport --dports 25337 -j CNI-DN-1f2e3d4c5b6a798081726
-A CNI-DN-1f2e3d4c5b6a798081726 -p tcp -m tcp --dport 25337 -j DNAT --to-destination 172.26.64.5:1337
COMMIT
""")
L.pyserve("pod", "0.0.0.0", 1337)
L.trace("pod")
print(L.x("pod", "curl -sS -m 3 http://192.0.2.10:25337/", check=False).stderr)
L.stop(); L.show()
judge(L, L.outcomes(port=25337), "the SYN comes back to its sender: its source 172.26.64.5 is the receiver's own address (IP_LOCAL_SOURCE); masquerade hairpin connections", ("dropped_here",), ("172.26.64.5", ("IP_LOCAL_SOURCE", "LOCAL_SOURCE"), ("own address", "its own", "itself", "hairpin")), (), ("certain", "likely"), ("timed_out",))
